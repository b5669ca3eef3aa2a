// A record of circuits of a micro model, two steps; of text, or of prompts with answers.
#pragma once

#include "analysis/circuits/measure_circuit.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

inline analysis::CircuitRecord filled_circuits(const analysis::CircuitSettings& settings = {.baselines = 2},
                                               model::AttnResSource source = model::AttnResSource::block_sum,
                                               bool task = false) {
  const model::ModelConfig config = micro_config(model::Residual::block_attn_res, source, 3);
  const model::Model model = micro_model(config);
  analysis::ProbeTokens tokens = micro_tokens(6, 8);
  tokens.documents = {3, 3, 1, 2, 5, 4};
  if (task) tokens.answers = {{3, 2}, {6, -1}, {1, 0}, {2, 1}, {5, -1}, {4, 3}};
  analysis::CircuitRecord record{analysis::identify_circuits(config, tokens, settings), "2026-01-01T00:00:00Z", {}};
  for (const std::int64_t step : {0, 7}) {
    analysis::CircuitRow row = measure_circuit(model, record.identity, step);
    row.model_sha256 = "sha of step " + std::to_string(step);
    // Drawn weights predict nothing; here a circuit is what the file and the drawings need.
    for (std::size_t e = 0; e < row.kept.size(); e += 2) row.kept[e] = 1;
    record.put(std::move(row));
  }
  return record;
}

}  // namespace routescope::testing
