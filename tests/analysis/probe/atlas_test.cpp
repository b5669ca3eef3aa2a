// The atlas: first-order effects against finite differences of the gate, true ones against plain loops and against a
// probe, and the orders at which the estimates part from them.
#include "analysis/probe/atlas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/base/error.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"
#include "tests/model/pass/plain_model.h"

namespace routescope::testing {
namespace {

constexpr int all_routes = 1 << 20;

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

analysis::Atlas atlas_of(const model::Model& model, const analysis::ProbeTokens& tokens,
                         const analysis::ProbeSettings& settings, std::int64_t step = 0,
                         std::size_t batch_bytes = analysis::default_batch_bytes) {
  return analysis::make_atlas(model, analysis::identify(model.config(), tokens, settings), step,
                              *kernels::single_communicator(), batch_bytes);
}

std::size_t columns_of(const model::Model& model, int read) {
  return model.plan().reads[static_cast<std::size_t>(read)].columns.size();
}

class AtlasOf : public ::testing::TestWithParam<Mode> {
 protected:
  model::ModelConfig config(double recency_bias = 0.4) const {
    model::ModelConfig out = micro_config(GetParam().residual, GetParam().source, 4);
    out.num_blocks = 2;
    out.recency_bias = recency_bias;
    out.rms_norm_eps = eps;
    return out;
  }
  model::Model exact(double recency_bias = 0.4) const {
    return micro_model(config(recency_bias), {.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  }
  double eps = 1e-6;
  analysis::ProbeTokens tokens = micro_tokens(3, 6);
  const double predicted = 3 * 5;

  /// nll a predicted token under an intervention.
  double nll(model::Pass& pass, const model::RoutingIntervention& intervention) const {
    pass.forward(tokens.ids, &intervention);
    return pass.loss(analysis::next_tokens(tokens.ids, tokens.positions)) / predicted;
  }
  /// -d(nll)/d(gate) where `gated` makes an intervention of a gate; fourth order, as in
  /// tests/model/pass/gradient_test.cpp.
  template <class Gated>
  double slope(model::Pass& pass, const Gated& gated) const {
    const double step = 2e-4;
    const auto at = [&](double offset) { return nll(pass, gated(1 + offset)); };
    return -(8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
  }
};

model::RoutingIntervention mask_gate(const model::Model& model, int read, int column, double gate) {
  model::RoutingIntervention out;
  out.logit_bias.assign(model.plan().reads.size(),
                        std::vector<double>(static_cast<std::size_t>(model.plan().num_columns()), 0.0));
  out.logit_bias[static_cast<std::size_t>(read)][static_cast<std::size_t>(column)] = std::log(gate);
  return out;
}

model::RoutingIntervention zero_gate(const model::Model& model, int read, std::size_t source, double gate) {
  model::RoutingIntervention out;
  out.edits[read].alpha = [=, n = columns_of(model, read)](std::span<const double> alpha, std::span<double> edited) {
    for (std::size_t i = 0; i < alpha.size(); ++i) edited[i] = alpha[i] * (i % n == source ? gate : 1.0);
  };
  return out;
}

std::vector<std::pair<int, int>> routes_of(const analysis::Atlas& atlas) {
  std::vector<std::pair<int, int>> routes;
  for (const analysis::CheckedRoute& route : atlas.checked) routes.emplace_back(route.read, route.column);
  return routes;
}

std::vector<double> true_effects(const analysis::Atlas& atlas) {
  std::vector<double> effects;
  for (const analysis::CheckedRoute& route : atlas.checked) effects.push_back(route.true_effect.value);
  return effects;
}

TEST_P(AtlasOf, EveryRouteIsTheSlopeOfItsGate) {
  eps = 1e-16;  // see the end
  const model::Model model = exact();
  const analysis::Atlas atlas = atlas_of(model, tokens, {.atlas_checks = all_routes});
  model::Pass pass(model, tokens.sequences, tokens.positions, model::Pass::Kind::infer);
  double largest = 0, worst_mask = 0, worst_zero = 0, worst_true = 0;
  std::size_t routes = 0;
  const auto columns = static_cast<std::size_t>(model.plan().num_columns());
  std::vector<bool> seen(atlas.first_order.size(), false);
  const double intact = nll(pass, {});
  for (int r = 0; r < model.plan().num_routed(); ++r) {
    if (columns_of(model, r) < 2) continue;
    for (std::size_t i = 0; i < columns_of(model, r); ++i, ++routes) {
      const int column = model.plan().reads[static_cast<std::size_t>(r)].columns[i];
      const std::size_t route = static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(column);
      seen[route] = true;
      const double mask = slope(pass, [&](double gate) { return mask_gate(model, r, column, gate); });
      const double zero = slope(pass, [&](double gate) { return zero_gate(model, r, i, gate); });
      largest = std::max(largest, std::abs(mask));
      worst_mask = std::max(worst_mask, std::abs(atlas.first_order[route].value - mask));
      worst_zero = std::max(worst_zero, std::abs(zero - mask));
      ASSERT_EQ(routes_of(atlas).at(routes), std::make_pair(r, column));
      const double zeroed = nll(pass, zero_gate(model, r, i, 0)) - intact;
      worst_true = std::max(worst_true, std::abs(zeroed - atlas.checked[routes].true_effect.value));
    }
  }
  EXPECT_EQ(routes, atlas.checked.size());
  for (std::size_t route = 0; route < seen.size(); ++route)
    EXPECT_EQ(std::isnan(atlas.first_order[route].value), !seen[route]) << route;
  std::printf("effects up to %.2g: slope of mask off by %.1e, of zero by %.1e; zero from mask by %.1e\n", largest,
              worst_mask, worst_zero, worst_true);
  EXPECT_GT(largest, 0.01);
  EXPECT_LT(worst_mask, 1e-8 * largest);
  // h feeds an RMSNorm alone, which forgets its length but for eps, here as good as absent: to take a term away and to
  // renormalise the rest are one.
  EXPECT_LT(worst_zero, 1e-6 * largest);
  EXPECT_LT(worst_true, 1e-6 * largest);
}

TEST_P(AtlasOf, TrueEffectsAreThoseOfPlainLoops) {
  const model::Model model = exact();
  const analysis::Atlas atlas = atlas_of(model, tokens, {.seed = 4, .atlas_checks = 5});
  ASSERT_EQ(atlas.random_checks(), 5u);
  PlainModel plain(model);
  const auto mean_nll = [&](const PlainModel::Rule& rule) {
    double sum = 0;
    for (double value : plain.nll(tokens.ids, 6, rule)) sum += value;
    return sum / predicted;
  };
  const double intact = mean_nll({});
  for (std::size_t i = 0; i < atlas.checked.size(); ++i) {
    const auto& [r, column, by, effect_of_mask, p, p_adjusted] = atlas.checked[i];
    const double masked = mean_nll([&, read = r, wanted = column](const PlainRead& found) {
      if (found.read != read) return found.mixture();
      PlainRead changed = found;
      const std::vector<int>& columns = model.plan().reads[static_cast<std::size_t>(read)].columns;
      for (Row& alpha : changed.alpha) {
        double rest = 0;
        for (std::size_t s = 0; s < alpha.size(); ++s) rest += columns[s] == wanted ? 0 : alpha[s];
        for (std::size_t s = 0; s < alpha.size(); ++s) alpha[s] = columns[s] == wanted ? 0 : alpha[s] / rest;
      }
      return changed.mixture();
    });
    EXPECT_NEAR(effect_of_mask.value, masked - intact, 1e-10) << r << " " << column;
    EXPECT_GE(p_adjusted, p);
    EXPECT_GT(std::abs(masked - intact), 1e-6);
  }
}

TEST_P(AtlasOf, ErrsBySecondOrderInTheWeightsOfRoutes) {
  // A bias b on the current source makes every other weight about e^-b: effects are of that order, and what a straight
  // line misses of its square.
  double effect[2], missed[2], missed_by_estimate[2];
  const double bias[2] = {12, 15};
  for (int k : {0, 1}) {
    const model::Model model = exact(bias[k]);
    if (config().has_learned_bias())
      for (const model::ReadWeights& read : model.weights().reads) kernels::fill(read.bias, bias[k], kernels::Stream{});
    const analysis::Atlas atlas = atlas_of(model, tokens, {.atlas_checks = all_routes});
    effect[k] = missed[k] = missed_by_estimate[k] = 0;
    for (const analysis::CheckedRoute& route : atlas.checked) {
      if (route.column == model.plan().num_columns() - 1) continue;
      const auto at = static_cast<std::size_t>(route.read * model.plan().num_columns() + route.column);
      const double truth = route.true_effect.value;
      effect[k] = std::max(effect[k], std::abs(truth));
      missed[k] = std::max(missed[k], std::abs(atlas.first_order[at].value - truth));
      missed_by_estimate[k] = std::max(missed_by_estimate[k], std::abs(atlas.estimate[at].value - truth));
    }
  }
  std::printf("effects %.1e and %.1e, missed %.1e and %.1e, by the estimate %.1e and %.1e\n", effect[0], effect[1],
              missed[0], missed[1], missed_by_estimate[0], missed_by_estimate[1]);
  const double ratio = std::exp(bias[1] - bias[0]);
  EXPECT_GT(effect[0] / effect[1], ratio / 2);
  EXPECT_LT(effect[0] / effect[1], ratio * 2);
  EXPECT_GT(missed[0] / missed[1], ratio * ratio / 3);
  EXPECT_GT(missed_by_estimate[0] / missed_by_estimate[1], ratio * ratio / 3);
}

INSTANTIATE_TEST_SUITE_P(
    Modes, AtlasOf,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
                      Mode{"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum}),
    [](const auto& mode) { return std::string(mode.param.name); });

class AtlasInF32 : public ::testing::Test {
 protected:
  model::Model model = micro_model(micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  analysis::ProbeTokens tokens = micro_tokens(7, 8);
  analysis::Atlas atlas = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 12});

  double estimate(int read, int column) const {
    return atlas.estimate[static_cast<std::size_t>(read * model.plan().num_columns() + column)].value;
  }
};

std::vector<std::pair<int, int>> drawn_routes(const analysis::Atlas& atlas) {
  std::vector<std::pair<int, int>> routes;
  for (const analysis::CheckedRoute& route : atlas.checked) {
    if (route.by == analysis::CheckedBy::random) routes.emplace_back(route.read, route.column);
  }
  return routes;
}

/// The values and the lower ends of their intervals; NaN where both have none.
void expect_near(const std::vector<analysis::Estimate>& found, const std::vector<analysis::Estimate>& expected,
                 double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(std::isnan(found[i].value), std::isnan(expected[i].value)) << i;
    if (std::isnan(expected[i].value)) continue;
    EXPECT_NEAR(found[i].value, expected[i].value, tolerance) << i;
    EXPECT_NEAR(found[i].ci.lower, expected[i].ci.lower, tolerance) << i;
  }
}

TEST_F(AtlasInF32, ChecksADrawOfRoutesWithoutReplacement) {
  const auto drawn = drawn_routes(atlas);
  EXPECT_EQ(drawn.size(), 12u);
  EXPECT_EQ(atlas.random_checks(), 12u);
  const auto checked = routes_of(atlas);
  EXPECT_EQ(std::set(checked.begin(), checked.end()).size(), checked.size());
  for (const auto& [r, column] : checked) EXPECT_FALSE(std::isnan(estimate(r, column)));
  const analysis::Atlas other_step = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 12}, 9),
                        other_seed = atlas_of(model, tokens, {.seed = 4, .atlas_checks = 12});
  EXPECT_EQ(drawn_routes(other_step), drawn);
  EXPECT_NE(drawn_routes(other_seed), drawn);
  // Every route comes up: half of them at a time, each is drawn by one of 12 seeds.
  std::set<std::pair<int, int>> seen;
  const analysis::ProbeTokens one = tokens.first(1);
  const std::size_t all = analysis::maskable_routes(model.plan()).size();
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto some = drawn_routes(atlas_of(model, one, {.seed = seed, .atlas_checks = static_cast<int>(all / 2)}));
    seen.insert(some.begin(), some.end());
  }
  EXPECT_EQ(seen.size(), all);
}

TEST_F(AtlasInF32, ChecksTheStrongestRoutesToo) {
  std::vector<double> strength;
  for (const auto& [read, column] : analysis::maskable_routes(model.plan()))
    strength.push_back(std::abs(estimate(read, column)));
  std::sort(strength.rbegin(), strength.rend());
  std::size_t among_strongest = 0;
  for (const analysis::CheckedRoute& route : atlas.checked) {
    const bool strong = std::abs(estimate(route.read, route.column)) >= strength[11];
    among_strongest += strong;
    EXPECT_TRUE(strong || route.by == analysis::CheckedBy::random) << route.read << " " << route.column;
  }
  EXPECT_EQ(among_strongest, 12u);
  EXPECT_GT(atlas.checked.size(), 12u);
}

TEST_F(AtlasInF32, MasksEveryRouteAsAProbeOfItAloneDoes) {
  const analysis::Atlas exact = atlas_of(model, tokens, {.seed = 3, .atlas_checks = analysis::most_atlas_checks});
  ASSERT_EQ(routes_of(exact), analysis::maskable_routes(model.plan()));
  EXPECT_EQ(exact.random_checks(), exact.checked.size());
  std::vector<std::string> sets;
  double passes = 1;
  const auto reads = static_cast<double>(model.plan().reads.size());
  for (const analysis::CheckedRoute& route : exact.checked) {
    const model::Read& read = model.plan().reads[static_cast<std::size_t>(route.read)];
    sets.push_back(read.name + ":" + model.plan().columns[static_cast<std::size_t>(route.column)]);
    passes += (reads - route.read) / reads;
  }
  const analysis::ProbeRow row = probe_of(model, tokens, {.seed = 3, .sets = sets, .controls = 0});
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const double single = row.effects(analysis::Ablation::mask).sets[i].delta_nll.value;
    EXPECT_EQ(exact.checked[i].true_effect.value, single) << sets[i];
    EXPECT_NE(single, 0) << sets[i];
  }
  EXPECT_DOUBLE_EQ(exact.check_passes, passes);
  EXPECT_DOUBLE_EQ(exact.check_passes, row.cost.computed / row.cost.plain - 1);
}

TEST_F(AtlasInF32, RepeatsToTheBitAndSaysHowFarItIsToBeTrusted) {
  const analysis::Atlas again = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 12});
  EXPECT_EQ(true_effects(again), true_effects(atlas));
  expect_near(again.estimate, atlas.estimate, 0);
  EXPECT_EQ(again.checked[0].true_effect.ci.lower, atlas.checked[0].true_effect.ci.lower);
  const analysis::Atlas other_step = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 12}, 9);
  EXPECT_EQ(true_effects(other_step), true_effects(atlas));
  // The bootstrap of another step has other noise.
  EXPECT_NE(other_step.checked[0].true_effect.ci.lower, atlas.checked[0].true_effect.ci.lower);

  // Of the routes drawn at random alone.
  std::vector<double> estimates, first_order, truth, errors;
  for (const analysis::CheckedRoute& route : atlas.checked) {
    const analysis::Estimate& effect = route.true_effect;
    EXPECT_LT(effect.ci.lower, effect.value);
    EXPECT_GT(effect.ci.upper, effect.value);
    if (route.by == analysis::CheckedBy::strongest) continue;
    estimates.push_back(estimate(route.read, route.column));
    first_order.push_back(
        atlas.first_order[static_cast<std::size_t>(route.read * model.plan().num_columns() + route.column)].value);
    truth.push_back(effect.value);
    errors.push_back(std::abs(estimates.back() - effect.value) / std::abs(effect.value));
  }
  EXPECT_EQ(atlas.rank_correlation, analysis::rank_correlation(estimates, truth));
  EXPECT_EQ(atlas.first_order_rank_correlation, analysis::rank_correlation(first_order, truth));
  std::sort(errors.begin(), errors.end());
  EXPECT_DOUBLE_EQ(atlas.median_relative_error, 0.5 * (errors[5] + errors[6]));
}

TEST_F(AtlasInF32, DoesNotDependOnTheSizeOfBatches) {
  const analysis::Atlas one_by_one = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 12}, 0, 1);
  // f32 sums of nll of order 4 nats, whose products may be cut otherwise.
  expect_near(one_by_one.first_order, atlas.first_order, 1e-5);
  expect_near(one_by_one.estimate, atlas.estimate, 1e-5);
  const std::vector<double> found = true_effects(one_by_one), expected = true_effects(atlas);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5) << i;
}

TEST_F(AtlasInF32, WithoutChecksSaysNothingOfItsError) {
  const analysis::Atlas unchecked = atlas_of(model, tokens, {.seed = 3, .atlas_checks = 0});
  expect_near(unchecked.first_order, atlas.first_order, 0);
  expect_near(unchecked.estimate, atlas.estimate, 0);
  EXPECT_TRUE(unchecked.checked.empty());
  for (double value : {unchecked.rank_correlation, unchecked.first_order_rank_correlation,
                       unchecked.median_relative_error, unchecked.check_passes})
    EXPECT_TRUE(std::isnan(value));
}

TEST(AtlasOfAStandardModel, IsRefused) {
  const model::Model model = micro_model(micro_config(model::Residual::standard, model::AttnResSource::block_sum));
  try {
    atlas_of(model, micro_tokens(1, 4), {});
    FAIL() << "accepted";
  } catch (const data::Error& error) {
    EXPECT_STREQ(error.what(),
                 "the model's residual stream is 'standard': it has no reads to probe, expected a routed model");
  }
}

}  // namespace
}  // namespace routescope::testing
