// The atlas: first-order effects against finite differences of the gate, true ones against plain loops, and the order
// at which the two part.
#include "analysis/probe/atlas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/base/error.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
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
                         const analysis::AtlasOptions& options) {
  return analysis::make_atlas(model, tokens, options, *kernels::single_communicator());
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
  /// -d(nll)/d(gate) where `gated` makes an intervention of a gate; fourth order, as in tests/model/gradient_test.cpp.
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

TEST_P(AtlasOf, EveryRouteIsTheSlopeOfItsGate) {
  eps = 1e-16;  // see the end
  const model::Model model = exact();
  const analysis::Atlas atlas = atlas_of(model, tokens, {.checks = all_routes});
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
      worst_mask = std::max(worst_mask, std::abs(atlas.first_order[route] - mask));
      worst_zero = std::max(worst_zero, std::abs(zero - mask));
      ASSERT_EQ(atlas.checked.at(routes), std::make_pair(r, column));
      const double zeroed = nll(pass, zero_gate(model, r, i, 0)) - intact;
      worst_true = std::max(worst_true, std::abs(zeroed - atlas.true_effect[routes]));
    }
  }
  EXPECT_EQ(routes, atlas.checked.size());
  for (std::size_t route = 0; route < seen.size(); ++route)
    EXPECT_EQ(std::isnan(atlas.first_order[route]), !seen[route]) << route;
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
  const analysis::Atlas atlas = atlas_of(model, tokens, {.seed = 4, .checks = 5});
  ASSERT_EQ(atlas.checked.size(), 5u);
  PlainModel plain(model);
  const auto mean_nll = [&](const PlainModel::Rule& rule) {
    double sum = 0;
    for (double value : plain.nll(tokens.ids, 6, rule)) sum += value;
    return sum / predicted;
  };
  const double intact = mean_nll({});
  for (std::size_t i = 0; i < atlas.checked.size(); ++i) {
    const auto [r, column] = atlas.checked[i];
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
    EXPECT_NEAR(atlas.true_effect[i], masked - intact, 1e-10) << r << " " << column;
    EXPECT_GT(std::abs(masked - intact), 1e-6);
  }
}

TEST_P(AtlasOf, ErrsBySecondOrderInTheWeightsOfRoutes) {
  // A bias b on the current source makes every other weight about e^-b: effects are of that order, and what a straight
  // line misses of its square.
  double effect[2], missed[2];
  const double bias[2] = {12, 15};
  for (int k : {0, 1}) {
    const model::Model model = exact(bias[k]);
    if (config().has_learned_bias())
      for (const model::ReadWeights& read : model.weights().reads) kernels::fill(read.bias, bias[k], kernels::Stream{});
    const analysis::Atlas atlas = atlas_of(model, tokens, {.checks = all_routes});
    effect[k] = missed[k] = 0;
    for (std::size_t i = 0; i < atlas.checked.size(); ++i) {
      const auto [r, column] = atlas.checked[i];
      if (column == model.plan().num_columns() - 1) continue;
      const double estimate = atlas.first_order[static_cast<std::size_t>(r * model.plan().num_columns() + column)];
      effect[k] = std::max(effect[k], std::abs(atlas.true_effect[i]));
      missed[k] = std::max(missed[k], std::abs(estimate - atlas.true_effect[i]));
    }
  }
  std::printf("effects %.1e and %.1e, missed %.1e and %.1e\n", effect[0], effect[1], missed[0], missed[1]);
  const double ratio = std::exp(bias[1] - bias[0]);
  EXPECT_GT(effect[0] / effect[1], ratio / 2);
  EXPECT_LT(effect[0] / effect[1], ratio * 2);
  EXPECT_GT(missed[0] / missed[1], ratio * ratio / 3);
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
  analysis::Atlas atlas = atlas_of(model, tokens, {.seed = 3, .checks = 12});
};

/// NaN where both have none.
void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(found[i])) << i;
    } else {
      EXPECT_NEAR(found[i], expected[i], tolerance) << i;
    }
  }
}

TEST_F(AtlasInF32, ChecksADrawOfRoutesWithoutReplacement) {
  EXPECT_EQ(atlas.checked.size(), 12u);
  EXPECT_EQ(std::set(atlas.checked.begin(), atlas.checked.end()).size(), 12u);
  for (const auto& [r, column] : atlas.checked)
    EXPECT_FALSE(std::isnan(atlas.first_order[static_cast<std::size_t>(r * model.plan().num_columns() + column)]));
  const analysis::Atlas other_step = atlas_of(model, tokens, {.seed = 3, .step = 9, .checks = 12}),
                        other_seed = atlas_of(model, tokens, {.seed = 4, .checks = 12});
  EXPECT_EQ(other_step.checked, atlas.checked);
  EXPECT_NE(other_seed.checked, atlas.checked);
  // Every route comes up: half of them at a time, each is drawn by one of 12 seeds.
  std::set<std::pair<int, int>> drawn;
  const analysis::ProbeTokens one = tokens.first(1);
  const analysis::Atlas whole = atlas_of(model, one, {.checks = all_routes});
  const int half = static_cast<int>(whole.checked.size() / 2);
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const analysis::Atlas some = atlas_of(model, one, {.seed = seed, .checks = half});
    drawn.insert(some.checked.begin(), some.checked.end());
  }
  EXPECT_EQ(drawn.size(), whole.checked.size());
}

TEST_F(AtlasInF32, RepeatsToTheBitAndSaysHowFarItIsToBeTrusted) {
  const analysis::Atlas again = atlas_of(model, tokens, {.seed = 3, .checks = 12});
  EXPECT_EQ(again.true_effect, atlas.true_effect);
  EXPECT_EQ(again.true_lower, atlas.true_lower);
  EXPECT_EQ(again.rank_correlation_ci.lower, atlas.rank_correlation_ci.lower);
  const analysis::Atlas other_step = atlas_of(model, tokens, {.seed = 3, .step = 9, .checks = 12});
  EXPECT_EQ(other_step.true_effect, atlas.true_effect);
  EXPECT_NE(other_step.true_lower, atlas.true_lower);  // its bootstrap's noise is its own

  std::vector<double> estimates, errors;
  for (std::size_t i = 0; i < atlas.checked.size(); ++i) {
    const auto [r, column] = atlas.checked[i];
    estimates.push_back(atlas.first_order[static_cast<std::size_t>(r * model.plan().num_columns() + column)]);
    errors.push_back(std::abs(estimates.back() - atlas.true_effect[i]) / std::abs(atlas.true_effect[i]));
    EXPECT_LT(atlas.true_lower[i], atlas.true_effect[i]);
    EXPECT_GT(atlas.true_upper[i], atlas.true_effect[i]);
  }
  EXPECT_EQ(atlas.rank_correlation, analysis::rank_correlation(estimates, atlas.true_effect));
  EXPECT_GT(atlas.rank_correlation, 0.5);
  EXPECT_LT(atlas.rank_correlation_ci.lower, atlas.rank_correlation_ci.upper);
  EXPECT_GE(atlas.rank_correlation_ci.lower, -1.0);
  EXPECT_LE(atlas.rank_correlation_ci.upper, 1.0);
  std::sort(errors.begin(), errors.end());
  EXPECT_DOUBLE_EQ(atlas.median_relative_error, 0.5 * (errors[5] + errors[6]));
}

TEST_F(AtlasInF32, DoesNotDependOnTheSizeOfBatches) {
  const analysis::Atlas one_by_one = atlas_of(model, tokens, {.seed = 3, .checks = 12, .batch_bytes = 1});
  // f32 sums of nll of order 4 nats, whose products may be cut otherwise.
  expect_near(one_by_one.first_order, atlas.first_order, 1e-5);
  expect_near(one_by_one.true_effect, atlas.true_effect, 1e-5);
  expect_near(one_by_one.first_order_lower, atlas.first_order_lower, 1e-5);
}

TEST_F(AtlasInF32, WithoutChecksSaysNothingOfItsError) {
  const analysis::Atlas unchecked = atlas_of(model, tokens, {.seed = 3, .checks = 0});
  expect_near(unchecked.first_order, atlas.first_order, 0);
  EXPECT_TRUE(unchecked.checked.empty());
  EXPECT_TRUE(std::isnan(unchecked.rank_correlation));
  EXPECT_TRUE(std::isnan(unchecked.rank_correlation_ci.lower));
  EXPECT_TRUE(std::isnan(unchecked.median_relative_error));
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
