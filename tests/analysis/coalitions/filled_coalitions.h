// Records of coalitions of numbers drawn at random, in which no list is empty.
#pragma once

#include <random>

#include "analysis/coalitions/coalition_file.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

inline analysis::CoalitionRow drawn_coalitions(std::int64_t step, std::size_t sequences) {
  std::mt19937_64 random(static_cast<std::uint64_t>(100 + step));
  std::normal_distribution<double> normal;
  const auto estimate = [&] {
    const double value = normal(random);
    return analysis::Estimate{value, {value - 0.1, value + 0.2}};
  };
  analysis::CoalitionRow row;
  row.step = step;
  row.model_sha256 = "sha of step " + std::to_string(step);
  for (double* number : {&row.nll, &row.margin, &row.passes, &row.seconds}) *number = 1 + std::abs(normal(random));
  row.all = estimate();
  row.all_p = 0.01;
  row.orders = 12;
  const std::size_t slices = analysis::num_slices, pairs = analysis::pairs_of(slices).size();
  const auto fill = [&](std::vector<analysis::Estimate>& list, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) list.push_back(estimate());
  };
  for (auto* list : {&row.alone, &row.sufficiency, &row.slice_shapley}) fill(*list, slices);
  for (auto* list : {&row.player_sufficiency, &row.shapley}) fill(*list, analysis::num_players);
  fill(row.pair, pairs);
  for (std::size_t s = 0; s < slices; ++s) row.free_mass.push_back(std::abs(normal(random)));
  for (std::size_t i = 0; i < pairs; ++i) row.pair_p.push_back(i % 9 == 0 ? 0.01 : 0.6);
  row.in_company.assign(slices, analysis::InCompany::none);
  row.partner.assign(slices, -1);
  row.in_company[2] = analysis::InCompany::idle;
  row.in_company[7] = analysis::InCompany::redundant;
  row.partner[7] = 13;
  row.in_company[9] = analysis::InCompany::undecided;
  const auto losses = [&](std::vector<double>& list, std::size_t size) {
    for (std::size_t i = 0; i < size * sequences; ++i) list.push_back(normal(random));
  };
  losses(row.alone_loss, slices);
  losses(row.kept_loss, slices);
  losses(row.pair_loss, pairs);
  losses(row.coalition_loss, std::size_t{1} << analysis::num_players);
  return row;
}

/// Rows of some steps.
inline analysis::CoalitionRecord filled_coalitions(const std::vector<std::int64_t>& steps = {0, 7}) {
  analysis::ProbeTokens tokens = micro_tokens(6, 8);
  tokens.documents = {3, 3, 1, 2, 5, 4};
  const model::ModelConfig config = micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum, 3);
  analysis::CoalitionRecord record{{tokens, {}, config.to_json().dump()}, "2026-01-01T00:00:00Z", {}};
  for (std::int64_t step : steps) record.rows.push_back(drawn_coalitions(step, 6));
  return record;
}

}  // namespace routescope::testing
