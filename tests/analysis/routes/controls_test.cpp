// What controls are matched to, what they may not be, and how often each is drawn.
#include "analysis/routes/controls.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/analysis/probe/micro_model.h"

namespace routescope::analysis {
namespace {

/// 6 layers in 3 blocks of 2.
model::ReadPlan micro_plan(model::AttnResSource source = model::AttnResSource::block_sum) {
  return model::ReadPlan(testing::micro_config(model::Residual::block_attn_res, source));
}

/// Weights of every read that sum to one, rising over its sources as 1, 2, 3, ...; a column that a read lacks is NaN.
std::vector<double> rising_weights(const model::ReadPlan& plan) {
  std::vector<double> alpha(static_cast<std::size_t>(plan.num_routed() * plan.num_columns()), std::nan(""));
  for (int r = 0; r < plan.num_routed(); ++r) {
    const std::vector<int>& columns = plan.reads[static_cast<std::size_t>(r)].columns;
    const double total = static_cast<double>(columns.size() * (columns.size() + 1)) / 2;
    for (std::size_t i = 0; i < columns.size(); ++i)
      alpha[static_cast<std::size_t>(r * plan.num_columns() + columns[i])] = static_cast<double>(i + 1) / total;
  }
  return alpha;
}

Controls controls_of(const model::ReadPlan& plan, const std::string& set, const std::vector<double>& held,
                     Ablation ablation = Ablation::mask, int count = 16) {
  return make_controls(plan, ablation, parse_route_set(set, plan), held, 3, 0, Matched::alpha, count);
}

TEST(Controls, HoldWhatTheSetHoldsInEachOfItsReads) {
  for (model::AttnResSource source : {model::AttnResSource::block_sum, model::AttnResSource::cumulative}) {
    const model::ReadPlan plan = micro_plan(source);
    const std::vector<double> alpha = rising_weights(plan);
    const auto mass = [&](int r, int c) { return alpha[static_cast<std::size_t>(r * plan.num_columns() + c)]; };
    std::vector<RouteSet> sets = slice_sets(plan);
    sets.push_back(parse_route_set("4.attn:block_1", plan));
    sets.push_back(parse_route_set("2.mlp-5.mlp:embedding,current", plan));
    sets.push_back(parse_route_set("5.attn", plan));
    std::size_t partial = 0;
    for (std::size_t s = 0; s < sets.size(); ++s) {
      std::map<int, double> held;
      for (const auto& [r, c] : sets[s].routes) held[r] += mass(r, c);
      const Controls controls =
          make_controls(plan, Ablation::freeze, sets[s], alpha, 3, static_cast<int>(s), Matched::alpha, 16);
      double weights = 0;
      for (const Control& control : controls.draws) {
        weights += control.weight;
        std::map<int, double> taken;
        std::set<std::pair<int, int>> seen;
        int last = -1;
        for (const GatedRoute& route : control.routes) {
          EXPECT_TRUE(route.share > 0 && route.share <= 1) << sets[s].name;
          EXPECT_TRUE(seen.insert({route.read, route.column}).second) << sets[s].name << ": a route twice";
          EXPECT_GE(route.read, last);
          last = route.read;
          taken[route.read] += route.share * mass(route.read, route.column);
          partial += route.share < 1;
        }
        EXPECT_EQ(taken.size(), held.size()) << sets[s].name;
        for (const auto& [r, expected] : held) EXPECT_NEAR(taken[r], expected, 1e-12) << sets[s].name << " read " << r;
      }
      EXPECT_NEAR(weights, 1, 1e-12);
    }
    EXPECT_GT(partial, 50U);
  }
}

TEST(Controls, AreAllTakenWhereTheyAreFewEachByItsChance) {
  const model::ReadPlan plan = micro_plan();
  // Sources embedding and current: 1/3 and 2/3, so that either the embedding goes or half of the current source.
  const Controls controls = controls_of(plan, "1.mlp:embedding", rising_weights(plan));
  EXPECT_TRUE(controls.enumerated);
  EXPECT_EQ(controls.coverage, 1);
  ASSERT_EQ(controls.draws.size(), 2U);
  for (const Control& control : controls.draws) {
    ASSERT_EQ(control.routes.size(), 1U);
    EXPECT_DOUBLE_EQ(control.routes[0].share, control.routes[0].column == 0 ? 1 : 0.5);
    EXPECT_NEAR(control.weight, 0.5, 1e-12);
  }
  // Any of four sources holds as much as the lightest.
  const Controls more = controls_of(plan, "4.mlp:embedding", rising_weights(plan));
  EXPECT_FALSE(more.enumerated);
  EXPECT_EQ(more.draws.size(), 16U);
}

TEST(Controls, AreDrawnAsOftenAsRandomOrdersMakeThem) {
  const model::ReadPlan plan = micro_plan();
  const std::vector<double> alpha = rising_weights(plan);
  // block_2 holds 3/10. First in order: block_2 alone (1/4), current in part (1/4), embedding (1/4: then block_1 makes
  // it 3/10, or block_2 or current in part), block_1 (1/4: then the embedding, or block_2 or current in part).
  const Controls few = controls_of(plan, "4.mlp:block_2", alpha, Ablation::mask, 4000);
  ASSERT_FALSE(few.enumerated);
  ASSERT_EQ(few.draws.size(), 4000U);
  std::map<std::vector<int>, int> count;
  for (const Control& control : few.draws) {
    std::vector<int> columns;
    for (const GatedRoute& route : control.routes) columns.push_back(route.column);
    ++count[columns];
  }
  const auto expect_share = [&](const std::vector<int>& columns, double share) {  // binomial: five standard deviations
    EXPECT_NEAR(count[columns], 4000 * share, 5 * std::sqrt(4000 * share * (1 - share))) << columns.size();
  };
  const int current = plan.num_columns() - 1;
  expect_share({2}, 0.25);
  expect_share({current}, 0.25);
  expect_share({0, 1}, 1.0 / 6);
  expect_share({0, 2}, 1.0 / 12);
  expect_share({0, current}, 1.0 / 12);
  expect_share({1, 2}, 1.0 / 12);
  expect_share({1, current}, 1.0 / 12);
  const Controls again = controls_of(plan, "4.mlp:block_2", alpha, Ablation::mask, 4000);
  for (std::size_t i = 0; i < 100; ++i) {
    ASSERT_EQ(again.draws[i].routes.size(), few.draws[i].routes.size());
    EXPECT_EQ(again.draws[i].routes[0].column, few.draws[i].routes[0].column);
  }
}

TEST(Controls, NeverLeaveOneSourceInPartThatANormWouldRestore) {
  const model::ReadPlan plan = micro_plan();
  std::vector<double> alpha = rising_weights(plan);
  // 0.mlp has the embedding (2/3 here) and its current state (1/3).
  alpha[static_cast<std::size_t>(plan.num_columns())] = 2.0 / 3;
  alpha[static_cast<std::size_t>(2 * plan.num_columns() - 1)] = 1.0 / 3;
  // The current state whole and half of the embedding hold 2/3, but what is left of the embedding is all that is left.
  const Controls removed = controls_of(plan, "0.mlp:embedding", alpha);
  ASSERT_EQ(removed.draws.size(), 1U);
  EXPECT_EQ(removed.coverage, 0);
  EXPECT_EQ(removed.draws[0].routes.size(), 1U);
  // An ablation that keeps the terms' lengths has that control.
  const Controls frozen = controls_of(plan, "0.mlp:embedding", alpha, Ablation::freeze);
  EXPECT_EQ(frozen.draws.size(), 2U);
  EXPECT_EQ(frozen.coverage, 1);
  // Half of the embedding in place of the current state leaves two sources.
  EXPECT_EQ(controls_of(plan, "0.mlp:current", alpha).draws.size(), 2U);
}

TEST(Controls, OfASetThatHoldsAllOrNothingAreTheSet) {
  const model::ReadPlan plan = micro_plan();
  const std::vector<double> alpha = rising_weights(plan);
  const Controls all = controls_of(plan, "5.attn", alpha, Ablation::zero);
  ASSERT_EQ(all.draws.size(), 1U);
  EXPECT_EQ(all.coverage, 0);
  EXPECT_EQ(all.draws[0].routes.size(), plan.reads[10].columns.size());
  std::vector<double> against = alpha;  // contributes against what the read hands on
  against[static_cast<std::size_t>(9 * plan.num_columns())] = -0.1;
  EXPECT_EQ(controls_of(plan, "4.mlp:embedding", against).coverage, 0);
  // Others never take it.
  for (const Control& control : controls_of(plan, "4.mlp:block_1", against).draws)
    for (const GatedRoute& route : control.routes) EXPECT_NE(route.column, 0);
}

}  // namespace
}  // namespace routescope::analysis
