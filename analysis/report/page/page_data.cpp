#include "analysis/report/page/page_data.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

#include "analysis/report/claim_text.h"
#include "analysis/report/facts.h"
#include "analysis/report/page/circuit_data.h"
#include "analysis/report/page/coalition_data.h"
#include "analysis/report/page/probe_data.h"
#include "analysis/report/page/task_data.h"
#include "analysis/report/page/text_data.h"
#include "analysis/report/page/values.h"
#include "analysis/report/page/writers_data.h"
#include "analysis/report/wording.h"
#include "analysis/routes/slices.h"
#include "data/base/build.h"
#include "model/pass/reads.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

// The limits that keep a page under 5 MB, shared by the runs: weights over all snapshots (each with its spread and the
// two other masses, about 18 bytes), points of the training loss (about 25 bytes), numbers of probes and atlases (8),
// weights of single tokens (4/3).
constexpr std::size_t most_weights = 110'000;
constexpr std::size_t most_losses = 1200;
constexpr std::size_t most_effects = 200'000;
constexpr std::size_t most_atlas = 50'000;
constexpr std::size_t most_coalition_rows = 24;      // of all runs, about 9 kilobytes each
constexpr std::size_t most_task_rows = 400;          // of each task, five numbers
constexpr std::size_t most_writer_numbers = 24'000;  // 4 to 9 bytes each
constexpr std::size_t most_token_weights = 600'000;

/// What the page needs to know of the reads and sources of a model.
data::RoutingRecordInfo axes_of(const Study& study) {
  data::RoutingRecordInfo info = study.runs.front().routing.info;
  if (!info.reads.empty() || !study.config || !study.config->routed()) return info;
  const model::ReadPlan plan(*study.config);
  info.sources = plan.columns;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    info.reads.push_back(read.name);
    info.layer.push_back(static_cast<std::int32_t>(read.layer));
    info.sublayer.push_back(model::to_string(read.sublayer));
    info.depth.push_back(model::to_string(plan.depth(r)));
  }
  return info;
}

/// Weights in 1/10000, -1 where there is none.
json weights(const std::vector<float>& values) {
  json out = json::array();
  for (float value : values)
    out.push_back(std::isfinite(value) ? std::lround(1e4 * std::clamp(static_cast<double>(value), -1e4, 1e4)) : -1);
  return out;
}

/// The same of masses that may be negative, null where there is none; null if there are none at all (a file of an older
/// version).
json masses(const std::vector<float>& values) {
  json out = json::array();
  bool any = false;
  for (float value : values) {
    any = any || std::isfinite(value);
    out.push_back(std::isfinite(value) ? json(std::lround(1e4 * std::clamp(static_cast<double>(value), -1e4, 1e4)))
                                       : json());
  }
  return any ? out : json();
}

json snapshot_data(const data::RoutingRecordView& record, std::size_t most) {
  json out{{"step", json::array()},         {"alpha", json::array()},     {"alpha_std", json::array()},
           {"contribution", json::array()}, {"norm_mass", json::array()}, {"entropy", json::array()}};
  const std::size_t cells = record.info.reads.size() * record.info.sources.size();
  if (cells == 0) return out;
  for (std::size_t i : thinned(record.snapshots.size(), std::max<std::size_t>(2, most / cells))) {
    const data::RoutingSnapshot& snapshot = record.snapshots[i];
    out["step"].push_back(snapshot.step);
    out["alpha"].push_back(weights(snapshot.alpha_mean));
    out["alpha_std"].push_back(weights(snapshot.alpha_std));
    out["contribution"].push_back(masses(snapshot.contribution_mean));
    out["norm_mass"].push_back(masses(snapshot.norm_mass_mean));
    out["entropy"].push_back(json_numbers({snapshot.alpha_entropy.begin(), snapshot.alpha_entropy.end()}));
  }
  return out;
}

/// Losses by step; where there are more than `most`, means over bins whose steps have a constant ratio.
json train_data(const std::vector<data::TrainRow>& rows, std::size_t most) {
  json out{{"rows", rows.size()}, {"step", json::array()}, {"tokens", json::array()}, {"loss", json::array()}};
  if (rows.empty()) return out;
  const double span =
      static_cast<double>(rows.back().step) / static_cast<double>(std::max<std::int64_t>(1, rows.front().step));
  const double ratio = rows.size() > most ? std::pow(span, 1.0 / static_cast<double>(most)) : 1.0;
  for (std::size_t begin = 0; begin < rows.size();) {
    double sum = 0;
    std::size_t end = begin;
    const double limit = static_cast<double>(rows[begin].step) * ratio;
    do {
      sum += rows[end++].loss;
    } while (end < rows.size() && static_cast<double>(rows[end].step) < limit);
    out["step"].push_back(rows[end - 1].step);
    out["tokens"].push_back(rows[end - 1].tokens_seen);
    out["loss"].push_back(json_number(sum / static_cast<double>(end - begin)));
    begin = end;
  }
  return out;
}

json valid_data(const std::vector<data::ValidRow>& rows, double tokens_per_step) {
  json out{{"step", json::array()}, {"tokens", json::array()}, {"loss", json::array()}};
  for (const data::ValidRow& row : rows) {
    out["step"].push_back(row.step);
    out["tokens"].push_back(std::llround(static_cast<double>(row.step) * tokens_per_step));
    out["loss"].push_back(json_number(row.loss));
  }
  return out;
}

/// A set's name, and its family, sublayer and depth if it is a slice.
json set_data(const std::string& name) {
  for (int slice = 0; slice < num_slices; ++slice) {
    if (slice_name(static_cast<std::size_t>(slice)) != name) continue;
    return {{"name", name},
            {"title", set_text(name)},
            {"family", slice / 6},
            {"sublayer", slice / 3 % 2},
            {"depth", slice % 3}};
  }
  return {{"name", name}, {"title", name}, {"family", nullptr}, {"sublayer", nullptr}, {"depth", nullptr}};
}

json sets_data(const std::vector<std::string>& names) {
  json out = json::array();
  for (const std::string& name : names) out.push_back(set_data(name));
  return out;
}

/// Rows of probes that a page can hold of each run.
std::size_t most_rows(const ProbeIdentity& identity, std::size_t runs) {
  constexpr std::size_t fields = 18;
  const std::size_t numbers =
      std::max<std::size_t>(1, identity.settings.ablations.size() * identity.sets.size() * fields);
  return std::max<std::size_t>(2, most_effects / runs / numbers);
}

json run_data(const StudyRun& run, const std::vector<std::string>& sets, std::size_t runs) {
  const double tokens_per_step =
      run.trained_steps == 0 ? 0.0 : static_cast<double>(run.tokens_seen) / static_cast<double>(run.trained_steps);
  const bool probed = !run.record.rows.empty() && !run.record.identity.sets.empty();  // not a standard model
  return {
      {"name", run.name},
      {"seed", run.seed < 0 ? json() : json(run.seed)},
      {"train_loss", json_number(run.train_loss)},
      {"valid_loss", json_number(run.valid_loss)},
      {"tokens_per_step", tokens_per_step},
      {"snapshots", snapshot_data(run.routing, most_weights / runs)},
      {"train", train_data(run.routing.train, std::max<std::size_t>(100, most_losses / runs))},
      {"valid", valid_data(run.routing.valid, tokens_per_step)},
      {"probes",
       probed ? probes_data(run.name, run.record, run.findings, sets, most_rows(run.record.identity, runs)) : json()},
      {"atlas", atlas_data(run.record.rows, most_atlas / runs)},
      {"tasks", tasks_data(run.tasks, std::max<std::size_t>(2, most_task_rows / runs))}};
}

json entries(const Entries& all) {
  json out = json::array();
  for (const auto& [name, text] : all) out.push_back(json::array({name, text}));
  return out;
}

json one_claim(const Claim& claim) {
  return {{"claim", claim.claim}, {"verdict", claim.verdict}, {"tone", claim.tone}, {"evidence", claim.evidence}};
}

json claim_data(const Study& study) {
  json out = json::array();
  for (const Claim& claim : claims_of(study)) out.push_back(one_claim(claim));
  return out;
}

std::string pooled_text(const Study& study) {
  if (study.pooled) return fmt::format("Pooled over {} runs.", study.runs.size());
  return study.not_pooled.empty() ? "" : "The runs are not pooled: " + study.not_pooled;
}

/// What the probes of all runs say; empty lists where nothing was probed.
void add_findings(json& out, const Study& study) {
  const ProbeIdentity& identity = study.runs.front().record.identity;
  const Findings& findings = study.findings();
  const std::vector<Ablation>& ablations = identity.settings.ablations;
  out["sets"] = sets_data(identity.sets);
  out["motifs"] = motifs_data(findings);
  out["motif_step"] = findings.step;
  out["motif_ablation"] = ablations.empty() ? "" : to_string(ablations.front());
  const std::vector<std::size_t> rows = thinned(findings.step.size(), most_rows(identity, study.runs.size()));
  out["dissociation"] = dissociation_data(findings, rows);
  out["interactions"] = interactions_data(findings, identity.sets, identity.sets, rows);
}

}  // namespace

json page_data(const Study& study, const std::optional<RoutedText>& text, const StudyCircuits& circuits,
               const StudyCoalitions& coalitions) {
  const data::RoutingRecordInfo info = axes_of(study);
  const std::vector<std::string>& sets = study.runs.front().record.identity.sets;
  std::vector<std::string> names;
  json runs = json::array(), baselines = json::array();
  for (const StudyRun& run : study.runs) {
    names.push_back(run.name);
    runs.push_back(run_data(run, sets, study.runs.size()));
  }
  for (const StudyBaseline& baseline : study.baselines)
    if (!baseline.record.identity.sets.empty())
      baselines.push_back(probes_data(baseline.name, baseline.record, baseline.findings, sets, 1));
  json out = {
      {"title", list_text(names)},
      {"facts", entries(facts_of(study))},
      {"claims", claim_data(study)},
      {"pooled_runs", study.pooled_runs()},
      {"pooled_text", pooled_text(study)},
      {"methods", entries(methods_of(study))},
      {"reads", {{"name", info.reads}, {"layer", info.layer}, {"sublayer", info.sublayer}, {"depth", info.depth}}},
      {"sources", info.sources},
      {"runs", runs},
      {"baselines", baselines},
      {"circuits", circuits_data(circuits)},
      {"writers", writers_data(study, most_writer_numbers)},
      {"text", text ? text_data(*text, info.reads.size(), info.sources.size(), most_token_weights) : json()},
      {"not_probed", info.reads.empty() ? "This model\u2019s residual stream is not routed: there is nothing to probe."
                                        : "No step of this run was probed yet (routescope-analyze track --run DIR)."},
      {"footer", fmt::format("Made by routescope {}, {:%Y-%m-%d %H:%M} UTC.", data::routescope_version(),
                             fmt::gmtime(std::time(nullptr)))},
  };
  for (std::size_t r = 0; r < study.runs.size(); ++r)
    out["runs"][r]["coalitions"] =
        r < coalitions.size()
            ? coalitions_data(coalitions[r], std::max<std::size_t>(1, most_coalition_rows / study.runs.size()))
            : json::array();
  if (const auto claim = company_claim(study, coalitions)) out["claims"].push_back(one_claim(*claim));
  add_findings(out, study);
  return out;
}

}  // namespace routescope::analysis
