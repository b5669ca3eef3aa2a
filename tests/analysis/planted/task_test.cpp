// A task whose answer travels one route (planted_task.h): exactly that route is found, in both directions, and every
// metric moves by what the construction says.
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/probe/probe.h"
#include "analysis/results/task_file.h"
#include "tests/analysis/planted/planted_task.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::planted {
namespace {

using analysis::Ablation;
using analysis::Direction;

const double beta = task_beta;
constexpr double rounding = 1e-5;  // f32 logits of some units

analysis::ProbeRow probe_task(Direction direction) {
  const Machine machine = gated();
  const analysis::Task task = analysis::parse_task(task_text(), "planted", 16, direction);
  return testing::probe_of(machine.model(), task.run, {.ablations = {Ablation::mask, Ablation::patch}, .controls = 0},
                           0, task.donors);
}

struct Said {
  double nll, logit_diff, probability, rank;
};
/// The model says the answer's bit, or nothing: eight tokens share the bit, and all sixteen are alike.
const Said right{std::log(8.0) + std::log1p(std::exp(-beta)), beta, 1 / (8 * (1 + std::exp(-beta))), 3.5},
    nothing_said{std::log(16.0), 0, 1.0 / 16, 7.5};

void expect_effect(const analysis::SetEffect& effect, const Said& from, const Said& to) {
  EXPECT_NEAR(effect.delta_nll.value, to.nll - from.nll, rounding);
  const std::array<double, 3> expected{to.logit_diff - from.logit_diff, to.probability - from.probability,
                                       to.rank - from.rank};
  for (std::size_t m = 0; m < expected.size(); ++m) {
    for (double delta : effect.metrics[m].delta_sequence)
      EXPECT_NEAR(delta, expected[m], rounding) << analysis::metric_names[m];
    EXPECT_NEAR(effect.metrics[m].delta.value, expected[m], rounding);
  }
  if (&from == &to) {
    EXPECT_LE(std::abs(effect.delta_nll.value), rounding);
  } else {
    EXPECT_LT(effect.p_adjusted, 0.05);
    EXPECT_GT(std::abs(effect.delta_nll.value), 0.5);
  }
}

/// `route_says`: what is said when the one slice is ablated that matters.
void expect_one_route(const analysis::AblationEffects& effects, const Said& intact, const Said& route_says,
                      const std::string& slice = embedding_late) {
  const std::vector<analysis::Slice> slices = analysis::make_slices(gated().model().plan());
  int tested = 0;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    SCOPED_TRACE(analysis::to_string(effects.ablation) + " " + slices[s].name());
    if (effects.sets[s].coverage == 0) continue;
    ++tested;
    expect_effect(effects.sets[s], intact, slices[s].name() == slice ? route_says : intact);
  }
  EXPECT_GT(tested, 8);
}

void expect_intact(const analysis::ProbeRow& row, const Said& said) {
  EXPECT_NEAR(row.intact_nll, said.nll, rounding);
  EXPECT_NEAR(row.intact_metrics[0], said.logit_diff, rounding);
  EXPECT_NEAR(row.intact_metrics[1], said.probability, rounding);
  EXPECT_NEAR(row.intact_metrics[2], said.rank, rounding);
}

TEST(PlantedTask, NoisingFindsTheRouteOfTheAnswer) {
  const analysis::ProbeRow row = probe_task(Direction::noising);
  expect_intact(row, right);
  expect_one_route(row.effects(Ablation::mask), right, nothing_said);
  expect_one_route(row.effects(Ablation::patch), right, nothing_said);
}

TEST(PlantedTask, EveryVerdictIsRightAndComesEarly) {
  const Machine machine = gated();
  const analysis::Task task = analysis::parse_task(task_text(), "planted", 16);
  const analysis::ProbeRow row =
      testing::probe_of(machine.model(), task.run, {.controls = 0, .until_decided = true, .look_every = 16});
  const std::vector<analysis::Slice> slices = analysis::make_slices(machine.model().plan());
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const analysis::SetEffect& effect = row.effects(Ablation::mask).sets[s];
    if (effect.coverage == 0) continue;
    SCOPED_TRACE(slices[s].name());
    const bool matters = slices[s].name() == embedding_late;
    EXPECT_EQ(effect.decision, matters ? analysis::Decision::effect : analysis::Decision::absent);
    EXPECT_EQ(effect.sequences_used, 16);
    EXPECT_NEAR(effect.metrics[0].delta.value, matters ? -beta : 0, rounding);
    EXPECT_TRUE(std::isnan(effect.metrics[0].delta_sequence[16]));
  }
}

TEST(PlantedTask, IsFoundInEveryDrawnSetOfPrompts) {
  const Machine machine = gated();
  const std::vector<analysis::Slice> slices = analysis::make_slices(machine.model().plan());
  constexpr std::uint64_t sets = 40;
  int missed = 0, wrong = 0, tested = 0;
  for (std::uint64_t seed = 1; seed <= sets; ++seed) {
    const analysis::Task task = analysis::parse_task(task_text(seed), "planted", 16);
    const analysis::ProbeRow row = testing::probe_of(machine.model(), task.run, {.seed = seed, .controls = 0});
    for (std::size_t s = 0; s < slices.size(); ++s) {
      const analysis::SetEffect& effect = row.effects(Ablation::mask).sets[s];
      if (effect.coverage == 0) continue;
      ++tested;
      // Rounding is an effect to a test against zero: one within the margin is none.
      const bool shown = effect.p_adjusted < 0.05 && std::abs(effect.delta_nll.value) > rounding;
      if (slices[s].name() == embedding_late)
        missed += !shown;
      else
        wrong += shown;
    }
  }
  EXPECT_GT(tested, static_cast<int>(sets) * 8);
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(wrong, 0);
}

TEST(PlantedTask, DenoisingFindsTheRouteThatBringsTheAnswerBack) {
  const analysis::ProbeRow row = probe_task(Direction::denoising);
  expect_intact(row, nothing_said);
  // The route is closed already. It opens where the read loses what has all of its weight, the empty current source.
  expect_one_route(row.effects(Ablation::mask), nothing_said, right, "current.mlp.late");
  expect_one_route(row.effects(Ablation::patch), nothing_said, right);
}

}  // namespace
}  // namespace routescope::planted
