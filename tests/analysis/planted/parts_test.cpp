// Keys, values and what later routing repairs, on models of which it is known what every route does.
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/findings/findings.h"
#include "analysis/probe/probe.h"
#include "analysis/probe/summarize.h"
#include "tests/analysis/planted/mechanisms.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::planted {
namespace {

using analysis::Ablation;

constexpr double right = 0.9;
const double beta = std::log(right / (1 - right));
constexpr std::uint64_t seed = 20;
const double rounding = 2 * 10 * (std::log(16.0) + beta) * 0x1p-24;  // as in mechanisms_test.cpp

int resampled_signal(const Words& words, std::int64_t s, std::int64_t t) {
  return words.at(s, analysis::resample_donor(seed, s, t, positions), Bit::signal);
}

/// As (d), chosen_route(), but the last MLP reads what the embedding does not hold: the embedding is a key alone. Where
/// the token's choice is 1 it takes all the weight, and nothing is said; else the bit from block_1 is.
Machine key_alone() {
  Machine machine(beta, unread);
  machine.copy_previous(0, other, unread, tag_1);
  machine.weigh_block("2.mlp", tag_1, alone);
  machine.weigh_embedding("2.mlp", alone, 120);
  return machine;
}

struct Parts {
  Parts(const Machine& machine, const Says& law, std::vector<Ablation> ablations)
      : tokens(draw_text(law, right, 32, seed)), donors(draw_text(law, right, 32, seed + 1)) {
    const analysis::ProbeSettings settings{
        .seed = seed, .ablations = std::move(ablations), .sets = {"2.mlp:embedding"}, .controls = 0};
    record.identity = analysis::identify(machine.model().config(), tokens, settings, donors);
    record.put(analysis::probe(machine.model(), record.identity));
  }

  void expect(Ablation ablation, const Says& says) const {
    const analysis::ProbeRow& row = record.rows.front();
    const Words words(tokens, donors, seed);
    for (std::int64_t s = 0; s < tokens.sequences; ++s) {
      double sum = 0;
      for (std::int64_t t = 0; t + 1 < positions; ++t)
        sum += loss(beta, words.at(s, t + 1, Bit::answer), says(words, s, t));
      const auto q = static_cast<std::size_t>(s);
      EXPECT_NEAR(row.intact_nll_sequence[q] + row.effects(ablation).sets[0].delta_nll_sequence[q],
                  std::log(8.0) + sum / (positions - 1), 2 * rounding)
          << to_string(ablation) << ", sequence " << s;
    }
  }
  analysis::PartInteraction interaction(analysis::Donor donor) const {
    const analysis::Findings findings = analysis::find(record);
    for (const analysis::PartInteraction& one : findings.interactions.front())
      if (one.donor == donor) return one;
    throw std::out_of_range("interaction");
  }

  analysis::ProbeTokens tokens, donors;
  analysis::AnalysisRecord record;
};

const std::vector<Ablation> parts{Ablation::mean,           Ablation::mean_key,     Ablation::mean_both,
                                  Ablation::resample_value, Ablation::resample_key, Ablation::resample_both,
                                  Ablation::patch_value,    Ablation::patch_key,    Ablation::patch_both};

// A source that is a key alone: another value does nothing, another key everything, and there is nothing between them.
TEST(PlantedParts, OfAKeyAlone) {
  const Parts found(key_alone(), previous_other, parts);
  const Says intact = by_choice(nothing, previous_other);
  for (Ablation value : {Ablation::mean, Ablation::resample_value, Ablation::patch_value}) found.expect(value, intact);
  for (Ablation key : {Ablation::resample_key, Ablation::resample_both})
    found.expect(key, by_resampled(nothing, previous_other));
  for (Ablation key : {Ablation::patch_key, Ablation::patch_both})
    found.expect(key, by_patched(nothing, previous_other));
  // Without the bits the mean is shorter, and its logit larger than any: it takes all the weight.
  for (Ablation key : {Ablation::mean_key, Ablation::mean_both}) found.expect(key, nothing);
  const analysis::PartInteraction interaction = found.interaction(analysis::Donor::position);
  EXPECT_NEAR(interaction.delta_nll[0].value, 0, 2 * rounding);
  EXPECT_GT(found.record.rows.front().effects(Ablation::mean_key).sets[0].delta_nll.value, 0.1);
}

// A source that is a value alone: its key is the same for every token.
TEST(PlantedParts, OfAValueAlone) {
  const Parts found(only_embedding(beta).machine, its_signal, parts);
  for (Ablation key : {Ablation::resample_key, Ablation::patch_key, Ablation::mean_key}) found.expect(key, its_signal);
  for (Ablation value : {Ablation::resample_value, Ablation::resample_both}) found.expect(value, resampled_signal);
  for (Ablation value : {Ablation::mean, Ablation::mean_both}) found.expect(value, usual_signal);
  EXPECT_NEAR(found.interaction(analysis::Donor::mean).delta_nll[0].value, 0, 2 * rounding);
  EXPECT_GT(found.record.rows.front().effects(Ablation::resample_value).sets[0].delta_nll.value, 0.5);
}

// Both at once: where the key of another token chooses the embedding, its value counts.
TEST(PlantedParts, OfAKeyThatIsAValueToo) {
  const Parts found(chosen_route(beta).machine, by_choice(its_signal, previous_other), parts);
  found.expect(Ablation::resample_key, by_resampled(its_signal, previous_other));
  found.expect(Ablation::resample_value, by_choice(resampled_signal, previous_other));
  found.expect(Ablation::resample_both, by_resampled(resampled_signal, previous_other));
  const analysis::PartInteraction interaction = found.interaction(analysis::Donor::position);
  EXPECT_LT(interaction.delta_nll[0].ci.upper, -0.05);
  EXPECT_LT(interaction.p_adjusted[0], 0.05);
}

// Damage that later routing repairs by a known share. Where the token's choice is -1, chosen_route() says what block_1
// fetched from the embedding in the first read. Without it block_1 is empty, a key like no other, and the last MLP
// turns to the embedding's signal, which is the lost bit in a share `copies` of cases; with its weights held it says
// nothing.
class Repaired {
 public:
  Repaired(double copies, std::int64_t sequences, std::uint64_t text_seed) : machine_(chosen_route(beta)) {
    tokens = draw_text(previous_other, right, sequences, text_seed);
    std::mt19937_64 random(text_seed + 1000);
    std::uniform_real_distribution<double> uniform;
    const Words words(tokens, tokens, seed);
    for (std::int64_t s = 0; s < sequences; ++s) {
      for (std::int64_t t = 0; t < positions; ++t) {
        const bool up = (words.previous(s, t) > 0) == (uniform(random) < copies);
        std::int32_t& token = tokens.ids[static_cast<std::size_t>(s * positions + t)];
        token = (token & ~2) | (up ? 2 : 0);
      }
    }
  }

  analysis::AblationEffects measure(bool until_decided) const {
    return testing::probe_of(machine_.machine.model(), tokens,
                             {.seed = seed,
                              .ablations = {Ablation::zero},
                              .sets = {"embedding.attn.early"},
                              .controls = 0,
                              .frozen = true,
                              .until_decided = until_decided,
                              .look_every = tokens.sequences})
        .effects(Ablation::zero);
  }

  /// The expected loss of a token that says the lost bit, says nothing, or says the signal in its place.
  static double share(double copies) {
    const double good = right * loss(beta, 1, 1) + (1 - right) * loss(beta, 1, -1), none = std::log(2.0),
                 right_again = right * copies + (1 - right) * (1 - copies),
                 again = right_again * loss(beta, 1, 1) + (1 - right_again) * loss(beta, 1, -1);
    return (none - again) / (none - good);  // both where the choice is -1; elsewhere nothing changes
  }

  analysis::ProbeTokens tokens;

 private:
  Mechanism machine_;
};

TEST(PlantedRepair, IsFoundAsItIs) {
  const Repaired most(0.95, 512, 3), none(0.5, 512, 4);
  const analysis::AblationEffects found = most.measure(false), worse = none.measure(false);
  EXPECT_LT(found.repaired_share.ci.lower, Repaired::share(0.95));
  EXPECT_GT(found.repaired_share.ci.upper, Repaired::share(0.95));
  EXPECT_GT(found.repaired_share.ci.lower, 0.5);
  EXPECT_LT(found.sets[0].frozen.p_adjusted, 0.001);
  // The signal is chance: to say it is worse than to say nothing.
  EXPECT_LT(worse.repaired_share.ci.upper, 0);
  EXPECT_LT(worse.repaired_share.ci.lower, Repaired::share(0.5));
  EXPECT_GT(worse.repaired_share.ci.upper, Repaired::share(0.5));
}

// 500 repetitions of 24 documents: how often the interval holds the share, and how often later routing is said to
// repair anything where on average it repairs nothing.
TEST(PlantedRepairRates, HoldWhatTheyPromise) {
  constexpr std::int64_t repetitions = 500, each = 24;
  // Saying the signal is as good as saying nothing where this many are copies.
  double low = 0.5, high = 1;
  for (int i = 0; i < 60; ++i) (Repaired::share((low + high) / 2) < 0 ? low : high) = (low + high) / 2;
  for (double copies : {low, 0.95}) {
    const Repaired repaired(copies, repetitions * each, 7);
    const analysis::AblationEffects all = repaired.measure(true);
    std::int64_t held = 0, repairs = 0, known = 0;
    for (std::int64_t repetition = 0; repetition < repetitions; ++repetition) {
      analysis::AblationEffects one;
      analysis::ProbeIdentity identity;
      identity.settings.seed = static_cast<std::uint64_t>(repetition);
      identity.tokens.sequences = each;
      analysis::SetEffect& set = one.sets.emplace_back();
      set.coverage = 1;
      const auto cut = [&](const std::vector<double>& values) {
        const auto begin = values.begin() + repetition * each;
        return std::vector<double>(begin, begin + each);
      };
      set.delta_nll_sequence = cut(all.sets[0].delta_nll_sequence);
      set.frozen.delta_nll_sequence = cut(all.sets[0].frozen.delta_nll_sequence);
      analysis::summarize(one, identity, 0.01, 0);
      const analysis::Interval& ci = one.repaired_share.ci;
      known += !std::isnan(ci.lower);
      held += ci.lower <= Repaired::share(copies) && Repaired::share(copies) <= ci.upper;
      repairs += ci.lower > 0;
    }
    std::printf("repaired share %.3f: known in %.1f %%, interval held in %.1f %%, said to be above 0 in %.1f %%\n",
                Repaired::share(copies), known / 5.0, held / 5.0, repairs / 5.0);
    EXPECT_EQ(known, repetitions);
    EXPECT_GE(static_cast<double>(held) / repetitions, 0.95 - 2.33 * std::sqrt(0.95 * 0.05 / repetitions));
    if (copies == low) {
      EXPECT_LE(static_cast<double>(repairs) / repetitions, 0.025 + 2.33 * std::sqrt(0.025 * 0.975 / repetitions));
    } else {
      EXPECT_GE(repairs, repetitions * 9 / 10);
    }
  }
}

}  // namespace
}  // namespace routescope::planted
