#include "analysis/report/page/task_data.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/report/page/values.h"
#include "analysis/report/wording.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

constexpr std::size_t most_sets = 5;  // of an ablation

/// The tested sets with the largest effects, either way.
std::vector<std::size_t> strongest(const std::vector<SetEffect>& sets) {
  std::vector<std::size_t> order(sets.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t s) { return std::isnan(sets[s].delta_nll.value); });
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(sets[a].delta_nll.value) > std::abs(sets[b].delta_nll.value);
  });
  order.resize(std::min(order.size(), most_sets));
  return order;
}

json strongest_data(const AblationEffects& effects, const std::vector<std::string>& names) {
  json out = json::array();
  for (std::size_t s : strongest(effects.sets)) {
    const SetEffect& set = effects.sets[s];
    json one = {{"title", set_text(names[s])},
                {"nll", json_estimate(set.delta_nll)},
                {"excess", json_estimate(set.control.excess)},
                {"p", json_number(set.p_adjusted)}};
    for (std::size_t m = 0; m < num_metrics; ++m) one[metric_names[m]] = json_estimate(set.metrics[m].delta);
    out.push_back(std::move(one));
  }
  return {{"ablation", to_string(effects.ablation)}, {"sets", out}};
}

json task_data(const AnalysisRecord& record, std::size_t most_rows) {
  const ProbeIdentity& identity = record.identity;
  json out = {{"name", identity.task.name},
              {"direction", to_string(identity.task.direction)},
              {"prompts", identity.tokens.sequences},
              {"step", json::array()},
              {"nll", json::array()},
              {"effects", json::array()}};
  for (std::size_t at : thinned(record.rows.size(), most_rows)) {
    const ProbeRow& row = record.rows[at];
    out["step"].push_back(row.step);
    out["nll"].push_back(json_number(row.intact_nll));
    for (std::size_t m = 0; m < num_metrics; ++m) out[metric_names[m]].push_back(json_number(row.intact_metrics[m]));
  }
  for (const AblationEffects& effects : record.rows.back().ablations)
    out["effects"].push_back(strongest_data(effects, identity.sets));
  return out;
}

}  // namespace

json tasks_data(const std::vector<AnalysisRecord>& tasks, std::size_t most_rows) {
  json out = json::array();
  for (const AnalysisRecord& record : tasks)
    if (!record.rows.empty()) out.push_back(task_data(record, most_rows));
  return out;
}

}  // namespace routescope::analysis
