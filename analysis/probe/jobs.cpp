#include "analysis/probe/jobs.h"

#include <algorithm>
#include <cmath>

namespace routescope::analysis {
namespace {

constexpr std::int64_t most_groups = 8;
constexpr std::int64_t least_draws_of_group = 2;  // the spread within a group is what tells the error of a draw

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

Job make_job(const model::ReadPlan& plan, Ablation ablation, std::vector<GatedRoute> routes) {
  Job job;
  job.routes = std::move(routes);
  const std::vector<int> reads = changed_reads(plan, ablation, job.routes);
  job.first_read = reads.empty() ? static_cast<int>(plan.reads.size()) : reads.front();
  return job;
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

DrawGroups::DrawGroups(const ProbeSettings& settings, std::int64_t sequences) : draws(settings.controls) {
  const std::int64_t blocks =
      settings.until_decided ? (sequences + settings.look_every - 1) / settings.look_every : sequences;
  groups = std::clamp<std::int64_t>(settings.controls / least_draws_of_group, 1, std::min(most_groups, blocks));
  size = settings.until_decided ? settings.look_every : (sequences + groups - 1) / groups;
}

std::size_t DrawGroups::per_sequence() const {
  if (draws == 0) return 0;
  return std::max(most_enumerated_controls, index((draws + groups - 1) / groups));
}

DrawError draw_error(std::span<const double> delta_nll_draw, const DrawGroups& groups, std::size_t sequences) {
  const std::size_t width = groups.per_sequence();
  double squares = 0, freedom = 0, draws = 0;
  for (std::int64_t group = 0; group < groups.groups; ++group) {
    std::vector<double> means;
    for (std::size_t draw = 0; draw < width; ++draw) {
      double sum = 0, count = 0;
      for (std::size_t q = 0; q < sequences; ++q) {
        if (groups.of(static_cast<std::int64_t>(q)) != group) continue;
        sum += delta_nll_draw[q * width + draw];
        count += 1;
      }
      if (count > 0 && !std::isnan(sum)) means.push_back(sum / count);
    }
    if (means.empty()) continue;
    const double centre = mean(means);
    for (double value : means) squares += (value - centre) * (value - centre);
    freedom += static_cast<double>(means.size()) - 1;
    draws += static_cast<double>(means.size());
  }
  if (freedom == 0) return {};
  return {std::sqrt(squares / freedom / draws), freedom};
}

Jobs make_jobs(const model::ReadPlan& plan, std::span<const RouteSet> sets, const Reference& reference,
               const ProbeSettings& settings, const DrawGroups& groups) {
  Jobs out;
  for (std::size_t a = 0; a < settings.ablations.size(); ++a) {
    const Ablation ablation = settings.ablations[a];
    out.alpha.emplace_back(sets.size());
    out.contribution.emplace_back(sets.size());
    for (std::size_t s = 0; s < sets.size(); ++s) {
      if (!(coverage(plan, ablation, sets[s]) > 0)) continue;
      const auto add = [&](Job job) {
        job.ablation = a;
        job.set = s;
        out.list.push_back(std::move(job));
      };
      add(make_job(plan, ablation, whole(sets[s])));
      for (const Matched matched : {Matched::alpha, Matched::contribution}) {
        if (settings.controls == 0) continue;
        const bool by_alpha = matched == Matched::alpha;
        const std::vector<double>& held = by_alpha ? reference.alpha_mean : reference.contribution_mean;
        const Controls controls = make_controls(plan, ablation, sets[s], held, settings.seed, static_cast<int>(s),
                                                matched, settings.controls);
        ControlPlan& summary = (by_alpha ? out.alpha : out.contribution)[a][s];
        summary = {controls.coverage, nan, controls.enumerated};
        if (!(controls.coverage > 0)) continue;
        summary.overlap = overlap(plan, ablation, sets[s], controls, held);
        for (std::size_t draw = 0; draw < controls.draws.size(); ++draw) {
          Job job = make_job(plan, ablation, controls.draws[draw].routes);
          job.kind = by_alpha ? Job::Kind::alpha_control : Job::Kind::contribution_control;
          if (controls.enumerated) {
            job.draw = draw;
            job.weight = controls.draws[draw].weight;
          } else {
            const auto group_count = index(groups.groups);
            job.group = static_cast<std::int64_t>(draw % group_count);
            job.draw = draw / group_count;
            const std::size_t of_group = (controls.draws.size() - draw % group_count + group_count - 1) / group_count;
            job.weight = 1 / static_cast<double>(of_group);
          }
          add(std::move(job));
        }
      }
    }
  }
  std::stable_sort(out.list.begin(), out.list.end(),
                   [](const Job& a, const Job& b) { return a.first_read > b.first_read; });
  return out;
}

}  // namespace routescope::analysis
