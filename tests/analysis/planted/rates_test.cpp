// How often the statistics of a probe are wrong, over 500 repetitions with new text each, on planted mechanisms whose
// mean effects are known exactly. Bounds are the promised rate and 2.33 standard errors of 500 draws: what keeps its
// promised rate passes in 99 of 100 cases, and one at twice a rate of 5 % in 2 of 100.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "analysis/probe/probe.h"
#include "analysis/probe/summarize.h"
#include "analysis/statistics/sequential.h"
#include "tests/analysis/planted/mechanisms.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::planted {
namespace {

constexpr std::int64_t repetitions = 500;
constexpr std::int64_t longest = 32;  // sequences of one repetition that may stop early
constexpr std::int64_t fixed = 24;    // of one that may not: its first ones
constexpr std::int64_t look_every = 8;

double at_most(double rate) {
  return rate + 2.33 * std::sqrt(rate * (1 - rate) / repetitions);
}
double at_least(double rate) {
  return rate - 2.33 * std::sqrt(rate * (1 - rate) / repetitions);
}

/// All repetitions, measured in one go: their sequences are independent, and `mask` refers to no other sequence.
struct Pool {
  Pool(const Mechanism& mechanism, double right, std::vector<std::string> names, int wanted_controls,
       std::uint64_t seed)
      : sets(names.size()), controls(wanted_controls) {
    const analysis::ProbeTokens tokens = draw_text(mechanism.intact, right, repetitions * longest, seed);
    // One look, after everything: no bootstrap of all repetitions together.
    const analysis::ProbeSettings settings{.seed = seed,
                                           .sets = std::move(names),
                                           .controls = wanted_controls,
                                           .until_decided = true,
                                           .look_every = tokens.sequences};
    effects = testing::probe_of(mechanism.machine.model(), tokens, settings).effects(analysis::Ablation::mask);
  }

  /// Effects of one set on the first sequences of a repetition.
  std::span<const double> values(std::size_t set, std::int64_t repetition, std::int64_t count) const {
    return std::span(effects.sets[set].delta_nll_sequence)
        .subspan(static_cast<std::size_t>(repetition * longest), static_cast<std::size_t>(count));
  }

  /// What probe() says of the first `fixed` sequences of a repetition.
  analysis::AblationEffects summary(std::int64_t repetition, double margin) const {
    analysis::AblationEffects out;
    analysis::ProbeIdentity identity;
    identity.settings.seed = static_cast<std::uint64_t>(repetition);
    identity.settings.controls = controls;
    identity.tokens.sequences = fixed;
    for (const analysis::SetEffect& measured : effects.sets) {
      analysis::SetEffect& set = out.sets.emplace_back();
      set.coverage = measured.coverage;
      const auto cut = [&](const std::vector<double>& values) {
        const auto begin = values.begin() + static_cast<std::ptrdiff_t>(repetition * longest);
        return values.empty() ? values : std::vector<double>(begin, begin + fixed);
      };
      set.delta_nll_sequence = cut(measured.delta_nll_sequence);
      set.control.delta_nll_sequence = cut(measured.control.delta_nll_sequence);
    }
    analysis::summarize(out, identity, margin, 0);
    return out;
  }

  /// The first decision at a look at a set, among `tested` of them.
  analysis::Decision decided(std::size_t set, std::int64_t repetition, double margin) const {
    for (std::int64_t n = look_every; n <= longest; n += look_every) {
      const analysis::Decision decision = analysis::decide(values(set, repetition, n), sets, margin);
      if (decision != analysis::Decision::open) return decision;
    }
    return analysis::Decision::open;
  }

  /// Whether the confidence sequence holds the mean at every number of sequences.
  bool always_holds(std::size_t set, std::int64_t repetition, double truth) const {
    for (std::int64_t n = 2; n <= longest; ++n) {
      const analysis::Interval interval = analysis::confidence_sequence(values(set, repetition, n));
      if (!(interval.lower <= truth && truth <= interval.upper)) return false;
    }
    return true;
  }

  std::size_t sets;
  int controls;
  analysis::AblationEffects effects;
};

double share(std::int64_t count) {
  return static_cast<double>(count) / repetitions;
}

TEST(PlantedRates, OfWhatHasNoEffect) {
  // An effect on a token is 0, or beta or -beta with probabilities of at most 1/4 each. The margin is 8 standard
  // errors of 24 sequences: equivalence at Holm's least level, 0.05 / 4, takes 2.4 of them, and a confidence sequence
  // at 32 sequences 4 of its own, which leaves 5 for chance.
  constexpr double beta = 0.1;
  const double margin = 8 * beta / std::sqrt(2.0 * static_cast<double>(fixed * (positions - 1)));
  const std::vector<std::string> names{embedding_late, history_late, "2.mlp:block_1", "2.mlp:embedding,block_1"};
  const Pool pool(chance(beta), 0.5, names, 1, 1);

  std::vector<std::int64_t> wrong(names.size()), covered(names.size()), held(names.size()), equal(names.size()),
      wrong_excess(names.size()), absent(names.size());
  std::int64_t wrong_family = 0, wrong_excess_family = 0, wrong_decision = 0;
  for (std::int64_t r = 0; r < repetitions; ++r) {
    const analysis::AblationEffects found = pool.summary(r, margin);
    bool any = false, any_excess = false, any_decision = false;
    for (std::size_t s = 0; s < names.size(); ++s) {
      wrong[s] += found.sets[s].p_value < 0.05;
      wrong_excess[s] += found.sets[s].control.excess_p < 0.05;
      covered[s] += found.sets[s].delta_nll.ci.lower <= 0 && 0 <= found.sets[s].delta_nll.ci.upper;
      equal[s] += found.sets[s].p_equivalence_adjusted < 0.05;
      held[s] += pool.always_holds(s, r, 0);
      const analysis::Decision decision = pool.decided(s, r, margin);
      absent[s] += decision == analysis::Decision::absent;
      any |= found.sets[s].p_adjusted < 0.05;
      any_excess |= found.sets[s].control.excess_p_adjusted < 0.05;
      any_decision |= decision == analysis::Decision::effect;
    }
    wrong_family += any;
    wrong_excess_family += any_excess;
    wrong_decision += any_decision;
  }
  for (std::size_t s = 0; s < names.size(); ++s) {
    EXPECT_LT(pool.effects.sets[s].control.overlap, 1);  // else there is no excess to be wrong about
    std::printf(
        "%-24s p < 0.05 %.3f (excess %.3f), interval covers %.3f, sequence holds %.3f, shown equal %.3f, absent %.3f\n",
        names[s].c_str(), share(wrong[s]), share(wrong_excess[s]), share(covered[s]), share(held[s]), share(equal[s]),
        share(absent[s]));
    EXPECT_LE(share(wrong[s]), at_most(0.05));
    EXPECT_LE(share(wrong_excess[s]), at_most(0.05));
    EXPECT_GE(share(covered[s]), 0.93);
    EXPECT_LE(share(covered[s]), 0.97);
    EXPECT_GE(share(held[s]), at_least(0.95));
    EXPECT_GE(share(equal[s]), 0.99);
    EXPECT_GE(share(absent[s]), 0.92);  // corrected for skewness, a sequence may be wide or without end at 32
  }
  std::printf("any of the family: p adjusted < 0.05 %.3f (excess %.3f), decided as effect %.3f\n", share(wrong_family),
              share(wrong_excess_family), share(wrong_decision));
  EXPECT_LE(share(wrong_family), at_most(0.05));
  EXPECT_LE(share(wrong_excess_family), at_most(0.05));
  EXPECT_LE(share(wrong_decision), at_most(0.05));
}

TEST(PlantedRates, OfAKnownEffect) {
  double covered_in_all = 0;  // over 1000 draws: 93 to 97 % are 2.9 standard errors to both sides of 95 %
  for (const double right : {0.7, 0.9}) {
    const double beta = std::log(right / (1 - right));
    // ln 2 for saying nothing, less the entropy of an answer.
    const double truth = std::log(2.0) - right * loss(beta, 1, 1) - (1 - right) * loss(beta, -1, 1);
    const Pool pool(only_embedding(beta), right, {embedding_late}, 0, 2);
    std::int64_t covered = 0, held = 0, wrongly_equal = 0, wrongly_absent = 0, seen = 0;
    for (std::int64_t r = 0; r < repetitions; ++r) {
      // The margin is the effect itself: the least favourable of all that are not equivalent to none.
      const analysis::AblationEffects found = pool.summary(r, truth);
      covered += found.sets[0].delta_nll.ci.lower <= truth && truth <= found.sets[0].delta_nll.ci.upper;
      wrongly_equal += found.sets[0].p_equivalence_adjusted < 0.05;
      wrongly_absent += pool.decided(0, r, truth) == analysis::Decision::absent;
      held += pool.always_holds(0, r, truth);
      seen += found.sets[0].p_adjusted < 0.05;
    }
    std::printf(
        "effect %.4f: interval covers %.3f, sequence holds %.3f, p < 0.05 %.3f, equal to none %.3f, absent %.3f\n",
        truth, share(covered), share(held), share(seen), share(wrongly_equal), share(wrongly_absent));
    covered_in_all += share(covered) / 2;
    EXPECT_GE(share(held), at_least(0.95));
    EXPECT_LE(share(wrongly_equal), at_most(0.05));
    EXPECT_LE(share(wrongly_absent), at_most(0.05));
    EXPECT_GE(share(seen), 0.9);
  }
  EXPECT_GE(covered_in_all, 0.93);
  EXPECT_LE(covered_in_all, 0.97);
}

}  // namespace
}  // namespace routescope::planted
