// The atlas of mechanisms whose true effects are known: where estimates are right, and where they cannot be.
#include "analysis/probe/atlas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/analysis/planted/mechanisms.h"

namespace routescope::planted {
namespace {

constexpr std::uint64_t seed = 30;

struct Effect {
  double first_order, lower, upper, measured;
  analysis::Estimate estimate;
};

class PlantedAtlas : public ::testing::Test {
 protected:
  static analysis::Atlas atlas_of(const model::Model& model) {
    const analysis::ProbeTokens tokens = draw_text(its_signal, 0.9, 32, seed);
    // More checks than routes: all are checked.
    return analysis::make_atlas(model, analysis::identify(model.config(), tokens, {.seed = seed, .atlas_checks = 1000}),
                                0, *kernels::single_communicator());
  }

  static Effect of(const analysis::Atlas& atlas, const model::Model& model, const std::string& read,
                   const std::string& column) {
    const model::ReadPlan& plan = model.plan();
    const auto named = [&](const model::Read& one) { return one.name == read; };
    const auto r = std::find_if(plan.reads.begin(), plan.reads.end(), named) - plan.reads.begin();
    const auto c = std::find(plan.columns.begin(), plan.columns.end(), column) - plan.columns.begin();
    const auto checked = std::find_if(atlas.checked.begin(), atlas.checked.end(),
                                      [&](const auto& route) { return route.read == r && route.column == c; });
    const auto route = static_cast<std::size_t>(r * plan.num_columns() + c);
    const analysis::Estimate& effect = atlas.first_order.at(route);
    return {effect.value, effect.ci.lower, effect.ci.upper, checked->true_effect.value, atlas.estimate.at(route)};
  }
};

TEST_F(PlantedAtlas, HasTheSignOfEveryRouteWhereTheLossGivesWay) {
  const Machine machine = diluted(4);
  const model::Model& model = machine.model();
  const analysis::Atlas atlas = atlas_of(model);
  const Effect carrier = of(atlas, model, "2.mlp", "embedding"), diluter = of(atlas, model, "2.mlp", "current");
  std::printf("carrier: first order %.4f, true %.4f; diluter: %.4f, %.4f\n", carrier.first_order, carrier.measured,
              diluter.first_order, diluter.measured);
  EXPECT_GT(carrier.lower, 0);
  EXPECT_GT(carrier.measured, 0.2);  // ln 2 less the loss at 0.9, which is 0.26 on average
  EXPECT_LT(diluter.upper, 0);
  EXPECT_LT(diluter.measured, 0);
  // Two sources share all the weight: what one gains the other loses.
  EXPECT_NEAR(carrier.first_order, -diluter.first_order, 1e-6);
  // Nothing hangs on the reads of sublayers without weights.
  for (const char* read : {"0.mlp", "1.attn", "1.mlp"}) {
    for (const char* column : {"embedding", "current"}) {
      EXPECT_EQ(of(atlas, model, read, column).first_order, 0) << read << column;
      EXPECT_EQ(of(atlas, model, read, column).measured, 0) << read << column;
      EXPECT_EQ(of(atlas, model, read, column).estimate.value, 0) << read << column;
    }
  }
}

/// As diluted(), but the embedding has all the weight of the last MLP's read: the softmax is flat there, and first
/// order sees nothing. The estimate takes the whole step.
TEST_F(PlantedAtlas, SeesARouteWhoseWeightIsSaturated) {
  Machine machine(4);
  machine.weigh_embedding("2.attn", alone);
  machine.copy_previous(2, other, unread, tag_1, 0, 2);
  machine.weigh_embedding("2.mlp", alone);
  const Effect carrier = of(atlas_of(machine.model()), machine.model(), "2.mlp", "embedding");
  std::printf("saturated carrier: estimate %.4f [%.4f, %.4f], true %.4f, first order %.1e\n", carrier.estimate.value,
              carrier.estimate.ci.lower, carrier.estimate.ci.upper, carrier.measured, carrier.first_order);
  EXPECT_EQ(carrier.first_order, 0);
  EXPECT_GT(carrier.measured, 0.2);
  EXPECT_GT(carrier.estimate.ci.lower, 0.1);
}

/// In (a) what is said has the same size however small the embedding's weight, as long as there is any: the final norm,
/// far behind the read, makes the loss flat where it is looked at, and it falls off a cliff at zero. Only the true
/// ablations tell.
TEST_F(PlantedAtlas, CannotSeeWhatSaturatesFarBehindTheRead) {
  const double beta = std::log(9.0);
  const Mechanism mechanism = only_embedding(beta);
  const Effect carrier = of(atlas_of(mechanism.machine.model()), mechanism.machine.model(), "2.mlp", "embedding");
  EXPECT_NEAR(carrier.first_order, 0, 1e-5);
  EXPECT_NEAR(carrier.estimate.value, 0, 1e-5);
  EXPECT_GT(carrier.measured, 0.3);
}

}  // namespace
}  // namespace routescope::planted
