// Coalitions of routes on models of which it is known what every route does.
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/coalitions/measure_coalitions.h"
#include "kernels/comm/launch.h"
#include "tests/analysis/planted/mechanisms.h"

namespace routescope::planted {
namespace {

using analysis::CoalitionRow;
using analysis::InCompany;

constexpr double right = 0.9;
const double beta = std::log(right / (1 - right));

std::size_t slice(const std::string& name) {
  for (std::size_t s = 0; s < analysis::num_slices; ++s)
    if (analysis::slice_name(s) == name) return s;
  throw std::out_of_range(name);
}

CoalitionRow measured(const model::Model& model, const analysis::ProbeTokens& tokens, int permutations = 2,
                      double until_width = 0) {
  return analysis::measure_coalitions(
      model, tokens, {.seed = 3, .permutations = permutations, .until_width = until_width, .margin = 0.05},
      *kernels::single_communicator());
}

/// The token's signal is the other bit of the token before, in every case: embedding and history both carry the answer
/// to the last MLP, with as much.
struct Covered {
  Covered() : machine(beta) {
    machine.copy_previous(0, other, signal, tag_1);
    machine.weigh_embedding("2.mlp", recency);
    machine.weigh_block("2.mlp", tag_1, recency + std::log(4.0));
    tokens = draw_text(previous_other, right, 64, 5);
    const Words words(tokens, tokens, 0);
    for (std::int64_t s = 0; s < tokens.sequences; ++s) {
      for (std::int64_t t = 0; t < positions; ++t) {
        std::int32_t& token = tokens.ids[static_cast<std::size_t>(s * positions + t)];
        token = (token & ~2) | (words.previous(s, t) > 0 ? 2 : 0);
      }
    }
  }
  Machine machine;
  analysis::ProbeTokens tokens;
};

TEST(PlantedCoalitions, RoutesThatCoverForEachOtherAreRedundantAndNotIdle) {
  const Covered covered;
  const CoalitionRow row = measured(covered.machine.model(), covered.tokens);
  const std::size_t embedding = slice(embedding_late), history = slice(history_late);
  EXPECT_NEAR(row.alone[embedding].value, 0, 0.02);
  EXPECT_NEAR(row.alone[history].value, 0, 0.02);
  EXPECT_EQ(row.in_company[embedding], InCompany::redundant);
  EXPECT_EQ(row.in_company[history], InCompany::redundant);
  EXPECT_EQ(row.partner[history], static_cast<int>(embedding));
  std::size_t pair = 0;
  for (const auto& [a, b] : analysis::pairs_of(analysis::num_slices)) {
    if (a == embedding && b == history) {
      EXPECT_GT(row.pair[pair].ci.lower, 0.3);
      EXPECT_LT(row.pair_p[pair], 0.01);
    }
    ++pair;
  }
}

TEST(PlantedCoalitions, WhatNobodyReadsIsIdleInEveryCompany) {
  const Mechanism mechanism = idle_mass(beta);
  const CoalitionRow row = measured(mechanism.machine.model(), draw_text(mechanism.intact, right, 64, 6));
  EXPECT_EQ(row.in_company[slice(history_late)], InCompany::idle);
  EXPECT_EQ(row.in_company[slice(embedding_late)], InCompany::none);
  for (double p : row.pair_p) EXPECT_FALSE(p < 0.05);
  // The embedding alone is all that is needed.
  EXPECT_NEAR(row.sufficiency[slice(embedding_late)].value, 1, 1e-5);
  EXPECT_NEAR(row.shapley[1].value, row.all.value, 1e-5);
  for (std::size_t player : {0U, 2U, 3U, 4U, 5U}) EXPECT_NEAR(row.shapley[player].value, 0, 1e-5);
}

TEST(PlantedCoalitions, ShapleyValuesSumToWhatAllCost) {
  const Covered covered;
  const CoalitionRow row = measured(covered.machine.model(), covered.tokens, 4);
  double players = 0, slices = 0;
  for (const analysis::Estimate& one : row.shapley) players += one.value;
  for (const analysis::Estimate& one : row.slice_shapley) slices += one.value;
  EXPECT_NEAR(players, row.all.value, 1e-5);
  EXPECT_NEAR(slices, row.all.value, 1e-5);
  EXPECT_GT(row.all.value, 0.3);
}

/// The orders of an early stop are the first of all orders; its intervals are wider, because it could have gone on.
TEST(PlantedCoalitions, OrdersStopWhereTheirValuesAreKnown) {
  const Covered covered;
  const auto values = [&](int permutations, double until_width) {
    return measured(covered.machine.model(), covered.tokens, permutations, until_width);
  };
  const CoalitionRow early = values(32, 1e9), never = values(9, 1e-9), four = values(4, 0), nine = values(9, 0);
  EXPECT_EQ(early.orders, 8);
  EXPECT_EQ(never.orders, 18);
  EXPECT_EQ(four.orders, 8);
  EXPECT_LT(early.passes, never.passes);
  ASSERT_EQ(early.slice_shapley.size(), four.slice_shapley.size());
  for (std::size_t s = 0; s < four.slice_shapley.size(); ++s) {
    EXPECT_NEAR(early.slice_shapley[s].value, four.slice_shapley[s].value, 1e-6);
    EXPECT_NEAR(never.slice_shapley[s].value, nine.slice_shapley[s].value, 1e-6);
    EXPECT_LE(early.slice_shapley[s].ci.lower, four.slice_shapley[s].ci.lower + 1e-6);
    EXPECT_LE(never.slice_shapley[s].ci.lower, nine.slice_shapley[s].ci.lower + 1e-6);
  }
}

}  // namespace
}  // namespace routescope::planted
