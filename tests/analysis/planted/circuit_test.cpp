// Circuits of machines of which it is known which edges make them speak.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "analysis/circuits/measure_circuit.h"
#include "tests/analysis/planted/mechanisms.h"

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

// Pruned, a circuit of edges that are all needed stays as it is.
TEST(PlantedCircuits, PruningKeepsWhatIsNeeded) {
  Machine machine(4);
  machine.copy_previous(0, signal, unread, tag_1);
  machine.weigh_embedding("2.mlp", recency);
  const auto tokens = draw_text(its_signal, 0.95, 32, 6);
  CircuitSettings settings{.seed = 6, .faithfulness = 1, .baselines = 0};
  const CircuitIdentity all = identity_of(machine, tokens, settings);
  settings.faithfulness = 0.99;
  settings.prune = true;
  const CircuitIdentity pruned = identity_of(machine, tokens, settings);
  EXPECT_EQ(kept_edges(measure_circuit(machine.model(), pruned), pruned),
            (Names{"2.mlp<-embedding", "final<-current"}));
  EXPECT_GE(measure_circuit(machine.model(), all).size(), 2U);
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
