// Circuits of machines of which it is known which edges make them speak.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "analysis/circuits/measure_circuit.h"
#include "analysis/probe/estimates.h"
#include "analysis/results/task_file.h"
#include "tests/analysis/planted/planted_task.h"

namespace routescope::planted {
namespace {

using analysis::Ablation;
using analysis::CircuitIdentity;
using analysis::CircuitRow;
using analysis::CircuitSettings;
using Names = std::vector<std::string>;

constexpr int repetitions = 500;
double at_most(double rate) {
  return rate + 2.33 * std::sqrt(rate * (1 - rate) / repetitions);
}

struct Planted {
  Machine machine;
  Says intact;
  Names edges;  // by read and column
};

/// One of four mechanisms; sublayers that write nothing read whatever they like.
Planted draw(std::mt19937_64& random) {
  const double beta = 2 + static_cast<double>(random() % 3);
  const auto decoys = [&](Machine& machine, const Names& reads) {
    for (const std::string& read : reads)
      machine.weigh_embedding(read, recency + static_cast<double>(random() % 7) - 3);
  };
  Machine machine(beta);
  switch (random() % 4) {
    case 0:  // most of the weight lies on a block that nobody reads
      machine.copy_previous(0, other, unread, tag_1);
      machine.weigh_embedding("2.mlp", recency);
      machine.weigh_block("2.mlp", tag_1, recency + std::log(4.0));
      decoys(machine, {"0.mlp", "1.attn", "1.mlp", "2.attn"});
      return {std::move(machine), its_signal, {"2.mlp<-embedding", "final<-current"}};
    case 1:
      machine.copy_previous(0, other, signal, tag_1);
      machine.weigh_block("2.mlp", tag_1, recency);
      decoys(machine, {"0.mlp", "1.attn", "1.mlp", "2.attn"});
      return {std::move(machine), previous_other, {"0.attn<-embedding", "2.mlp<-block_1", "final<-current"}};
    case 2:
      machine.weigh_embedding("1.attn", alone);
      machine.copy_previous(1, other, signal, tag_2);
      machine.weigh_block("2.mlp", tag_2, recency);
      decoys(machine, {"0.mlp", "1.mlp", "2.attn"});
      return {std::move(machine), previous_other, {"1.attn<-embedding", "2.mlp<-block_2", "final<-current"}};
    default:
      Mechanism chosen = chosen_route(beta);
      decoys(chosen.machine, {"0.mlp", "1.attn", "1.mlp", "2.attn"});
      return {std::move(chosen.machine),
              chosen.intact,
              {"0.attn<-embedding", "2.mlp<-embedding", "2.mlp<-block_1", "final<-current"}};
  }
}

Names kept_edges(const CircuitRow& row, const CircuitIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  const auto edges = analysis::circuit_edges(plan, identity.settings.ablation);
  Names out;
  for (std::size_t e = 0; e < edges.size(); ++e)
    if (row.kept[e]) out.push_back(analysis::edge_name(plan, edges[e]));
  return out;
}

CircuitIdentity identity_of(const Machine& machine, const analysis::ProbeTokens& tokens, CircuitSettings settings) {
  return identify_circuits(machine.model().config(), tokens, settings);
}

TEST(PlantedCircuits, AreFoundAmongDecoys) {
  std::mt19937_64 random(5);
  int exact = 0, needed = 0, of_needed = 0, magnitude_worse = 0;
  for (int i = 0; i < repetitions; ++i) {
    const Planted planted = draw(random);
    const auto seed = static_cast<std::uint64_t>(i + 1);
    const CircuitIdentity identity =
        identity_of(planted.machine, draw_text(planted.intact, 0.97, 48, seed),
                    {.seed = seed, .ablation = i % 2 ? Ablation::zero : Ablation::mean, .baselines = 0});
    const CircuitRow row = measure_circuit(planted.machine.model(), identity);
    exact += kept_edges(row, identity) == planted.edges ? 1 : 0;
    needed += static_cast<int>(std::lround(row.needed * static_cast<double>(row.size())));
    of_needed += static_cast<int>(row.size());
    EXPECT_NEAR(row.kept_faithfulness.value, 1, 1e-3) << i;
    magnitude_worse += row.above_magnitude.ci.lower > 0 ? 1 : 0;
  }
  std::printf("found exactly %d of %d; %d of %d edges shown to be needed; above magnitude in %d\n", exact, repetitions,
              needed, of_needed, magnitude_worse);
  EXPECT_EQ(exact, repetitions);
  EXPECT_GE(needed, 0.95 * of_needed);
}

// A text that follows no law: what the machine says is right half of the time, and ablating everything costs nothing on
// average.
TEST(PlantedCircuits, AreNotReportedWhereNothingIsLost) {
  int shown = 0, circuits = 0;
  for (int i = 0; i < repetitions; ++i) {
    const auto seed = static_cast<std::uint64_t>(i + 1);
    const Mechanism mechanism = only_embedding(4);
    const CircuitIdentity identity =
        identity_of(mechanism.machine, draw_text(its_signal, 0.5, 32, seed), {.seed = seed, .baselines = 0});
    const CircuitRow row = measure_circuit(mechanism.machine.model(), identity);
    shown += std::isnan(row.faithfulness.front().value) ? 0 : 1;
    circuits += row.size() > 0 ? 1 : 0;
  }
  std::printf("of %d models that lose nothing: faithfulness in %d, a circuit in %d\n", repetitions, shown, circuits);
  EXPECT_LE(shown, at_most(0.05) * repetitions);
  EXPECT_LE(circuits, at_most(0.05) * repetitions);
}

/// The trapezoids of a curve over k = 0..edges.
template <class Curve>
double area_of(int edges, const Curve& curve) {
  double sum = 0;
  for (int k = 0; k < edges; ++k) sum += (curve(k) + curve(k + 1)) / 2;
  return sum / edges;
}

// Under `zero` a machine says nothing without one of its two edges: random orders have f = 1 once both are kept.
TEST(PlantedCircuits, RandomOrdersHaveTheAreaOfChance) {
  const Mechanism mechanism = only_embedding(4);
  const CircuitIdentity identity = identity_of(mechanism.machine, draw_text(its_signal, 1, 16, 3),
                                               {.seed = 3, .ablation = Ablation::zero, .baselines = 400});
  const CircuitRow row = measure_circuit(mechanism.machine.model(), identity);
  const auto edges = static_cast<int>(row.kept.size());
  const double expected = area_of(edges, [&](double k) { return k * (k - 1) / (edges * (edges - 1.0)); });
  double squares = 0;
  for (std::size_t o = 2; o < row.area.size(); ++o) squares += std::pow(row.area[o].value - row.random_area.value, 2);
  const double error = std::sqrt(squares / 399 / 400);
  EXPECT_NEAR(row.random_area.value, expected, 4 * error);
  EXPECT_LT(row.random_area.ci.lower, expected);
  EXPECT_GT(row.random_area.ci.upper, expected);
  const double width = (row.random_area.ci.upper - row.random_area.ci.lower) / error;  // t with 7 degrees of freedom
  EXPECT_GT(width, 2 * 1.96);
  EXPECT_LT(width, 2 * 2.365 * 1.1);
  const double of_score = area_of(edges, [](int k) { return k >= 2 ? 1.0 : 0.0; });
  EXPECT_NEAR(row.area[0].value, of_score, 1e-5);
  EXPECT_NEAR(row.above_random.value, of_score - row.random_area.value, 1e-5);
}

TEST(PlantedCircuits, EndsOfCurvesAndTheRest) {
  const Mechanism mechanism = only_history(4);
  const CircuitIdentity identity = identity_of(mechanism.machine, draw_text(previous_other, 0.95, 32, 4),
                                               {.seed = 4, .ablation = Ablation::zero, .baselines = 3});
  const CircuitRow row = measure_circuit(mechanism.machine.model(), identity);
  const std::size_t points = analysis::kept_counts(row.kept.size()).size();
  ASSERT_EQ(row.faithfulness.size(), 5 * points);
  for (std::size_t o = 0; o < 5; ++o) {
    EXPECT_EQ(row.faithfulness[o * points].value, 0);
    EXPECT_EQ(row.faithfulness[(o + 1) * points - 1].value, 1);
  }
  EXPECT_EQ(kept_edges(row, identity), (Names{"0.attn<-embedding", "2.mlp<-block_1", "final<-current"}));
  EXPECT_NEAR(row.rest_faithfulness.value, 0, 1e-5);
  EXPECT_EQ(row.needed, 1);
  // What keeping all of it computes is the intact model: the curve before its end is as good.
  EXPECT_NEAR(row.faithfulness[points - 2].value, 1, 1e-5);
}

/// The embedding's signal decides. Two layers add the previous token's other bit to it, one of them with the other
/// sign: together they are not heard, and the second one alone shouts the signal down, the first one alone does not.
Machine with_antidote() {
  constexpr double tag = 80;  // so large that the norms of both blocks are nearly the same
  Machine machine(4);
  machine.copy_previous(0, other, signal, tag_1, 0.8, tag);
  machine.weigh_embedding("1.attn", alone);
  machine.copy_previous(1, other, signal, tag_2, -1.2, tag);
  machine.weigh_embedding("2.mlp", recency);
  machine.weigh_block("2.mlp", tag_1, recency);
  machine.weigh_block("2.mlp", tag_2, recency);
  return machine;
}

// The antidote is needed in the model, which is what a score measures, and not in a circuit without the poison.
TEST(PlantedCircuits, PruningDropsWhatOnlyTheRestNeeds) {
  const Machine machine = with_antidote();
  const auto tokens = draw_text(its_signal, 0.95, 64, 6);
  CircuitSettings settings{.seed = 6, .ablation = Ablation::zero, .baselines = 0};
  const auto circuit = [&] {
    const CircuitIdentity identity = identity_of(machine, tokens, settings);
    const CircuitRow row = measure_circuit(machine.model(), identity);
    EXPECT_NEAR(row.kept_faithfulness.value, 1, 1e-3);
    return std::pair{kept_edges(row, identity), row.needed};
  };
  const auto [whole, of_whole] = circuit();
  EXPECT_EQ(whole, (Names{"0.attn<-embedding", "2.mlp<-embedding", "2.mlp<-block_1", "final<-current"}));
  EXPECT_EQ(of_whole, 0.5);
  settings.prune = true;
  const auto [pruned, of_pruned] = circuit();
  EXPECT_EQ(pruned, (Names{"2.mlp<-embedding", "final<-current"}));
  EXPECT_EQ(of_pruned, 1);
}

// Both halves are prompts with their answers, and only these count: everything is lost without either of two edges.
TEST(PlantedCircuits, OfATaskIsTheRouteOfItsAnswers) {
  const Machine machine = gated();
  const analysis::ProbeTokens prompts = analysis::parse_task(task_text(), "planted", 16).run;
  const CircuitIdentity identity =
      identity_of(machine, prompts, {.seed = 2, .ablation = Ablation::zero, .baselines = 0});
  for (const bool held_out : {false, true}) {
    const analysis::ProbeTokens half = half_of(identity, held_out);
    ASSERT_EQ(std::ssize(half.answers), half.sequences);
    std::int64_t q = 0;
    for (std::int64_t all = 0; all < prompts.sequences; ++all) {
      if ((identity.held_out[static_cast<std::size_t>(all)] != 0) != held_out) continue;
      EXPECT_EQ(half.answers[static_cast<std::size_t>(q)], prompts.answers[static_cast<std::size_t>(all)]);
      EXPECT_EQ(half.ids[static_cast<std::size_t>(q++ * half.positions)],
                prompts.ids[static_cast<std::size_t>(all * prompts.positions)]);
    }
  }
  const CircuitRow row = measure_circuit(machine.model(), identity);
  EXPECT_EQ(kept_edges(row, identity), (Names{"2.mlp<-embedding", "final<-current"}));
  const double lost = std::log(2.0) - std::log1p(std::exp(-task_beta));  // sixteen tokens in place of eight
  EXPECT_NEAR(row.none.value, lost, 1e-5);
  EXPECT_NEAR(row.kept_faithfulness.value, 1, 1e-5);
  for (std::size_t e = 0; e < row.kept.size(); ++e) {
    EXPECT_NEAR(row.score[e].value, row.kept[e] ? lost : 0, 1e-5) << e;
    if (row.kept[e]) {
      EXPECT_NEAR(row.drop[e].value, lost, 1e-5) << e;
    }
  }
}

// Estimated scores are the atlas's on the scoring half, in nats a scored token; a read's only source is measured.
TEST(PlantedCircuits, EstimatedScoresAreThoseOfTheAtlas) {
  const Machine text_machine = diluted(4), task_machine = gated();
  const analysis::ProbeTokens text = draw_text(its_signal, 0.9, 48, 11),
                              prompts = analysis::parse_task(task_text(), "planted", 16).run;
  for (const auto& [machine, tokens] : {std::pair(&text_machine, &text), {&task_machine, &prompts}}) {
    CircuitSettings settings{
        .seed = 3, .score = analysis::ScoreKind::estimate, .ablation = Ablation::zero, .baselines = 0};
    const CircuitIdentity identity = identity_of(*machine, *tokens, settings);
    settings.score = analysis::ScoreKind::exact;
    const CircuitRow row = measure_circuit(machine->model(), identity),
                     exact = measure_circuit(machine->model(), identity_of(*machine, *tokens, settings));
    const model::ReadPlan plan = identity.plan();
    const analysis::ProbeTokens half = half_of(identity, false);
    const std::vector<double> values =
        analysis::route_estimates(machine->model(), half, 0, half.sequences, settings.seed);
    const auto tables = static_cast<std::size_t>(plan.num_routed() * plan.num_columns());
    const auto edges = analysis::circuit_edges(plan, Ablation::zero);
    int measured = 0;
    for (std::size_t e = 0; e < edges.size(); ++e) {
      const auto [read, column] = edges[e];
      double expected = 0;
      for (std::int64_t q = 0; q < half.sequences; ++q)
        expected += values[static_cast<std::size_t>(2 * q + 1) * tables +
                           static_cast<std::size_t>(read * plan.num_columns() + column)] /
                    static_cast<double>(half.sequences * half.scored());
      const bool only = plan.reads[static_cast<std::size_t>(read)].columns.size() == 1;
      measured += only ? 1 : 0;
      EXPECT_NEAR(row.score[e].value, only ? exact.score[e].value : expected, 1e-9)
          << analysis::edge_name(plan, edges[e]);
    }
    EXPECT_GT(measured, 0);
  }
}

// Ablating every edge by `resample` takes all weights of a read from one other token: what is then said is known.
TEST(PlantedCircuits, ResampledEdgesTakeTheWeightsOfAnotherToken) {
  const Mechanism mechanism = chosen_route(4);
  const CircuitIdentity identity = identity_of(mechanism.machine, draw_text(mechanism.intact, 0.97, 48, 12),
                                               {.seed = 12, .ablation = Ablation::resample, .baselines = 0});
  const CircuitRow row = measure_circuit(mechanism.machine.model(), identity);
  const analysis::ProbeTokens half = half_of(identity, true);
  const Words words(half, half, identity.settings.seed);
  const Says resampled = by_resampled(its_signal, previous_other);
  double expected = 0;
  for (std::int64_t s = 0; s < half.sequences; ++s) {
    for (std::int64_t t = 0; t + 1 < positions; ++t) {
      const int answer = words.at(s, t + 1, Bit::answer);
      expected += (loss(4, answer, resampled(words, s, t)) - loss(4, answer, mechanism.intact(words, s, t))) /
                  static_cast<double>(half.sequences * (positions - 1));
    }
  }
  EXPECT_NEAR(row.none.value, expected, 1e-4);
  EXPECT_GT(expected, 0.5);
  EXPECT_EQ(kept_edges(row, identity), (Names{"2.mlp<-embedding", "2.mlp<-block_1"}));
}

void expect_same(const std::vector<analysis::Estimate>& a, const std::vector<analysis::Estimate>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].value, b[i].value) << i;
}

// Under `zero` no mean of the scoring half enters: what is reported changes with the held-out documents alone, scores
// with the scoring ones alone.
TEST(PlantedCircuits, ReportOnDocumentsThatHaveNoPartInTheScores) {
  const Mechanism mechanism = only_history(4);
  const analysis::ProbeTokens tokens = draw_text(previous_other, 0.9, 32, 7),
                              others = draw_text(previous_other, 0.9, 32, 8);
  const CircuitSettings settings{.seed = 9, .ablation = Ablation::zero, .baselines = 2};
  const auto measured = [&](const analysis::ProbeTokens& of) {
    return measure_circuit(mechanism.machine.model(), identity_of(mechanism.machine, of, settings));
  };
  const std::vector<std::uint8_t> held_out = identity_of(mechanism.machine, tokens, settings).held_out;
  const auto mixed = [&](std::uint8_t replaced) {
    analysis::ProbeTokens out = tokens;
    for (std::size_t i = 0; i < out.ids.size(); ++i)
      if (held_out[i / positions] == replaced) out.ids[i] = others.ids[i];
    return out;
  };
  const CircuitRow row = measured(tokens), other_scores = measured(mixed(0)), other_report = measured(mixed(1));
  EXPECT_NE(row.score[0].value, other_scores.score[0].value);
  EXPECT_EQ(row.kept, other_scores.kept);
  EXPECT_EQ(row.nll, other_scores.nll);
  EXPECT_EQ(row.kept_loss, other_scores.kept_loss);
  EXPECT_EQ(row.kept_faithfulness.value, other_scores.kept_faithfulness.value);
  const std::size_t drops = row.drop_loss.size();
  for (std::size_t i = 0; i < drops; ++i)
    EXPECT_TRUE(std::isnan(row.drop_loss[i]) || row.drop_loss[i] == other_scores.drop_loss[i]) << i;

  EXPECT_NE(row.nll, other_report.nll);
  expect_same(row.score, other_report.score);
  EXPECT_EQ(row.scoring_faithfulness, other_report.scoring_faithfulness);
  EXPECT_EQ(row.kept, other_report.kept);
  EXPECT_NE(row.loss, other_report.loss);
}

}  // namespace
}  // namespace routescope::planted
