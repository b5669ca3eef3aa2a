#include "analysis/report/page/writers_data.h"

#include <algorithm>
#include <cmath>

#include "analysis/report/page/values.h"
#include "analysis/writers/writers.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

json estimates(const std::vector<Estimate>& all) {
  json out = json::array();
  for (const Estimate& one : all) out.push_back(json_estimate(one));
  return out;
}

json effects(const std::vector<WriterEffect>& all) {
  json out = json::array();
  for (const WriterEffect& one : all) out.push_back(json_estimate(one.delta_nll));
  return out;
}

/// By family of sources: its contribution, and the part of it that is the embedding's, mean over the routed reads.
json through_families(const ProbeRow& row, const model::ReadPlan& plan) {
  json out = json::array();
  if (plan.num_routed() == 0) return out;
  for (model::Family family : {model::Family::embedding, model::Family::history, model::Family::current}) {
    double contribution = 0, part = 0;
    for (int r = 0; r < plan.num_routed(); ++r) {
      for (int column : plan.reads[static_cast<std::size_t>(r)].columns) {
        if (plan.family(column) != family) continue;
        const auto at = static_cast<std::size_t>(r * plan.num_columns() + column);
        contribution += row.contribution_mean[at] / plan.num_routed();
        part += row.writers.embedding_part[at].value / plan.num_routed();
      }
    }
    out.push_back(json::array({model::to_string(family), json_number(contribution), json_number(part)}));
  }
  return out;
}

void add_subject(json& out, const std::string& name, const AnalysisRecord& record, std::size_t most_numbers) {
  std::vector<const ProbeRow*> with;
  for (const ProbeRow& row : record.rows)
    if (!row.writers.empty()) with.push_back(&row);
  if (with.empty()) return;
  const auto config = model::ModelConfig::parse(record.identity.model_config, name + ": model_config");
  const model::ReadPlan plan(config);
  json rows = json::array();
  const std::size_t n = plan.reads.size(), most = most_numbers / (n * (n + 1) / 2 + 13 * n);
  for (std::size_t i : thinned(with.size(), std::max<std::size_t>(1, most))) {
    const Writers& writers = with[i]->writers;
    json cells = json::array();  // of read 0, of read 1, ...: its writers, in 1/1000
    for (std::size_t r = 0; most > 0 && r < n; ++r)
      for (std::size_t w = 0; w <= r; ++w) {
        const double value = 1e3 * std::clamp(writers.contribution[r * n + w].value, -1e6, 1e6);
        cells.push_back(std::isfinite(value) ? json(std::lround(value)) : json());
      }
    rows.push_back({{"step", with[i]->step},
                    {"cells", cells},
                    {"contribution", estimates(writers.mean_contribution)},
                    {"zero", effects(writers.zero)},
                    {"mean", effects(writers.mean)},
                    {"through", through_families(*with[i], plan)}});
  }
  out.push_back({{"name", name},
                 {"mode", model::to_string(config.residual) +
                              (config.routed() ? ", " + model::to_string(config.source) : std::string())},
                 {"writers", writer_names(plan)},
                 {"readers", reader_names(plan)},
                 {"rows", rows}});
}

}  // namespace

json writers_data(const Study& study, std::size_t most_numbers) {
  json out = json::array();
  const std::size_t share = most_numbers / (study.runs.size() + study.baselines.size());
  for (const StudyRun& run : study.runs) add_subject(out, run.name, run.record, share);
  for (const StudyBaseline& baseline : study.baselines) add_subject(out, baseline.name, baseline.record, share);
  return out;
}

}  // namespace routescope::analysis
