// Circuits filled with made-up numbers: what the page shows of them, without measuring any.
#pragma once

#include <random>

#include "analysis/report/study.h"
#include "tests/analysis/report/report_sample.h"

namespace routescope::testing {

inline analysis::Estimate around(double value, double spread = 0.02) {
  return {value, {value - spread, value + spread}};
}

/// A circuit of every other edge. All numbers differ from each other, and all that can be shown is shown.
inline analysis::CircuitRow sample_circuit(const analysis::CircuitIdentity& identity, std::int64_t step) {
  const std::size_t edges = circuit_edges(identity.plan(), identity.settings.ablation).size();
  const std::vector<std::int64_t> k = analysis::kept_counts(edges);
  const std::size_t orders = analysis::order_names(identity.settings).size();
  const auto at = [](std::size_t i) { return static_cast<double>(i); };
  analysis::CircuitRow row;
  row.step = step;
  row.none = around(1.5);
  row.none_p = 0.001;
  for (std::size_t e = 0; e < edges; ++e) {
    row.kept.push_back(e % 2 ? 0 : 1);
    row.score.push_back(around(0.3 - 0.001 * at(e)));
    row.magnitude.push_back(0.1 + 0.001 * at(e));
    row.drop.push_back(row.kept[e] ? around((e % 4 ? -0.01 : 0.2) - 0.001 * at(e)) : analysis::Estimate{});
    row.drop_p.push_back(row.kept[e] ? (e % 4 ? 0.5 : 0.001) : analysis::nan);
  }
  row.needed = 0.5;
  for (std::size_t o = 0; o < orders; ++o) {
    for (std::size_t i = 0; i < k.size(); ++i)
      row.faithfulness.push_back(around(std::pow(at(i) / at(k.size() - 1), at(o + 1) / 3)));
    row.area.push_back(around(0.9 - 0.1 * at(o)));
  }
  row.random_area = around(0.6);
  row.above_magnitude = around(0.1);
  row.above_random = around(0.3);
  row.kept_faithfulness = around(0.93, 0.04);
  row.rest_faithfulness = around(-0.1, 0.2);
  row.passes = 100;
  return row;
}

/// Of each of some runs, on text and on a task. The circuits of two successive steps, and of two runs, are the same.
inline analysis::StudyCircuits sample_circuits(std::size_t runs, const std::vector<std::int64_t>& steps = {0, 10, 40},
                                               const model::ModelConfig& config = sample_config()) {
  analysis::ProbeTokens tokens = micro_tokens(8, 8);
  for (std::int64_t i = 0; i < tokens.sequences; ++i) tokens.documents.push_back(i);
  analysis::CircuitRecord record{identify_circuits(config, tokens, {.baselines = 3}), "2026-01-01T00:00:00Z", {}};
  for (const std::int64_t step : steps) record.put(sample_circuit(record.identity, step));
  return analysis::StudyCircuits(runs, {{"", record}, {"induction", record}});
}

}  // namespace routescope::testing
