#include "analysis/probe/jobs.h"

#include <algorithm>

#include "analysis/statistics/documents.h"

namespace routescope::analysis {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Share of what controls hold that is their set's own, in the reads that the ablation changes.
double overlap(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set, const Controls& controls,
               std::span<const double> held) {
  double own = 0, all = 0;
  for (const Control& control : controls.draws) {
    const std::vector<int> changed = changed_reads(plan, ablation, control.routes);
    for (const GatedRoute& route : control.routes) {
      if (!std::binary_search(changed.begin(), changed.end(), route.read)) continue;
      const double mass = control.weight * route.share * held[index(route.read * plan.num_columns() + route.column)];
      all += mass;
      if (std::find(set.routes.begin(), set.routes.end(), std::pair{route.read, route.column}) != set.routes.end())
        own += mass;
    }
  }
  return own / all;
}

}  // namespace

DocumentDraws::DocumentDraws(const ProbeSettings& settings, const ProbeTokens& tokens)
    : document(document_numbers(tokens.documents, index(tokens.sequences))) {
  if (!document.empty()) documents = *std::max_element(document.begin(), document.end()) + 1;
  if (settings.controls == 0) return;
  const auto count = static_cast<std::int64_t>(documents);
  per_document = index(std::max<std::int64_t>(settings.controls, (least_draws + count - 1) / count));
}

Jobs make_jobs(const model::ReadPlan& plan, std::span<const RouteSet> sets, const Reference& reference,
               const ProbeSettings& settings, const DocumentDraws& draws) {
  Jobs out;
  for (std::size_t a = 0; a < settings.ablations.size(); ++a) {
    const Ablation ablation = settings.ablations[a];
    out.alpha.emplace_back(sets.size());
    out.contribution.emplace_back(sets.size());
    for (std::size_t s = 0; s < sets.size(); ++s) {
      if (!(coverage(plan, ablation, sets[s]) > 0)) continue;
      const auto add = [&](std::vector<std::vector<GatedRoute>> routes, Job::Kind kind, double weight) {
        const int reads = static_cast<int>(plan.reads.size());
        Job job{a, s, kind, weight, std::move(routes), reads};
        for (const std::vector<GatedRoute>& one : job.routes) {
          const std::vector<int> changed = changed_reads(plan, ablation, one);
          if (changed.empty()) continue;
          job.first_read = std::min(job.first_read, changed.front());
          if (kind == Job::Kind::direct)  // the sublayers of these reads, and the last one
            job.computed_reads = static_cast<int>(std::ssize(changed)) + (changed.back() + 1 < reads);
        }
        if (kind != Job::Kind::direct) job.computed_reads = reads - job.first_read;
        out.list.push_back(std::move(job));
      };
      add({whole(sets[s])}, Job::Kind::effect, 1);
      if (settings.frozen) add({whole(sets[s])}, Job::Kind::frozen, 1);
      if (settings.direct) add({whole(sets[s])}, Job::Kind::direct, 1);
      for (const Matched matched : {Matched::alpha, Matched::contribution}) {
        if (draws.per_document == 0) continue;
        const bool by_alpha = matched == Matched::alpha;
        const Job::Kind kind = by_alpha ? Job::Kind::alpha_control : Job::Kind::contribution_control;
        const std::vector<double>& held = by_alpha ? reference.alpha_mean : reference.contribution_mean;
        Controls controls = make_controls(plan, ablation, sets[s], held, settings.seed, static_cast<int>(s), matched,
                                          static_cast<int>(draws.documents * draws.per_document));
        ControlPlan& summary = (by_alpha ? out.alpha : out.contribution)[a][s];
        summary = {controls.coverage, nan, controls.enumerated};
        if (!(controls.coverage > 0)) continue;
        summary.overlap = overlap(plan, ablation, sets[s], controls, held);
        if (controls.enumerated) {
          for (Control& control : controls.draws) add({std::move(control.routes)}, kind, control.weight);
          continue;
        }
        for (std::size_t k = 0; k < draws.per_document; ++k) {
          std::vector<std::vector<GatedRoute>> by_document;
          for (std::size_t document = 0; document < draws.documents; ++document)
            by_document.push_back(std::move(controls.draws[k * draws.documents + document].routes));
          add(std::move(by_document), kind, 1 / static_cast<double>(draws.per_document));
        }
      }
    }
  }
  std::stable_sort(out.list.begin(), out.list.end(), [](const Job& a, const Job& b) {
    const bool a_direct = a.kind == Job::Kind::direct, b_direct = b.kind == Job::Kind::direct;
    return a_direct != b_direct ? a_direct : a.first_read > b.first_read;
  });
  return out;
}

}  // namespace routescope::analysis
