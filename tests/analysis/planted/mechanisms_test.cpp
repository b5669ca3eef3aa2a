// Probes on models of which it is known what every route does: every ablation of every slice has the effect that the
// construction says, to rounding, and every statistic the word for it.
#include "tests/analysis/planted/mechanisms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "analysis/findings/findings.h"
#include "analysis/probe/probe.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::planted {
namespace {

constexpr double right = 0.9;                       // share of answers that follow the law
const double beta = std::log(right / (1 - right));  // says how sure one may be
constexpr std::int64_t sequences = 32;
constexpr std::uint64_t seed = 20;

const std::vector<analysis::Ablation> all_ablations{analysis::Ablation::mask,   analysis::Ablation::zero,
                                                    analysis::Ablation::mean,   analysis::Ablation::resample,
                                                    analysis::Ablation::freeze, analysis::Ablation::patch};

/// f32: the nll of a token, of at most ln(16) + beta, is a sum of some ten terms, each of at most that size and rounded
/// to 2^-24 of it; an effect is the difference of two.
const double rounding = 2 * 10 * (std::log(16.0) + beta) * 0x1p-24;

struct Case {
  const char* name;
  Mechanism (*make)(double);
  const char* largest;  // slice with the largest effect of `mask`; null: two are alike
  bool idle_history;    // much mass on history in the last MLP's read, and no effect
  bool content;         // its weights depend on content
};
void PrintTo(const Case& planted, std::ostream* out) {
  *out << planted.name;
}

struct Probed {
  Probed(Mechanism planted, std::int64_t count, analysis::ProbeSettings settings)
      : mechanism(std::move(planted)),
        tokens(draw_text(mechanism.intact, right, count, seed)),
        donors(draw_text(mechanism.intact, right, count, seed + 1)),
        settings_(std::move(settings)) {
    settings_.seed = seed;
    settings_.ablations = all_ablations;
    const model::Model& model = mechanism.machine.model();
    slices = analysis::make_slices(model.plan());
    record.identity = analysis::identify(model.config(), tokens, settings_, donors);
    // A model of no use at step 0, so that there is something learned, with a hundredth of a nat as margin.
    analysis::ProbeRow initial = analysis::probe(model, record.identity);
    for (double& nll : initial.intact_nll_sequence) nll += 1;
    initial.intact_nll += 1;
    initial.reference_nll = initial.intact_nll;
    row = analysis::probe(model, record.identity, 1, *kernels::single_communicator(),
                          {.reference_nll = initial.intact_nll});
    for (analysis::AblationEffects& effects : initial.ablations) {
      for (analysis::SetEffect& set : effects.sets)
        for (double& effect : set.delta_nll_sequence) effect = 0;
    }
    record.put(std::move(initial));
    record.put(row);
  }

  /// What is said under the `ablation`-th ablation of a slice; null: what the intact model says.
  const Says* said(std::size_t slice, std::size_t ablation) const {
    for (const Line& line : mechanism.lines)
      if (line.slice == slices[slice].name() && line.says[ablation]) return &line.says[ablation];
    return nullptr;
  }

  /// Loss of a sequence beyond ln(8), mean over predicted tokens.
  double expected_loss(const Says& says, std::int64_t s) const {
    const Words words(tokens, donors, seed);
    double sum = 0;
    for (std::int64_t t = 0; t + 1 < positions; ++t)
      sum += loss(beta, words.at(s, t + 1, Bit::answer), says(words, s, t));
    return sum / static_cast<double>(positions - 1);
  }

  std::size_t index_of(const std::string& name) const {
    for (std::size_t i = 0; i < slices.size(); ++i)
      if (slices[i].name() == name) return i;
    throw std::out_of_range(name);
  }

  Mechanism mechanism;
  analysis::ProbeTokens tokens, donors;
  std::vector<analysis::Slice> slices;
  analysis::ProbeRow row;
  analysis::AnalysisRecord record;

 private:
  analysis::ProbeSettings settings_;
};

class Planted : public ::testing::TestWithParam<Case> {
 protected:
  /// Measured once for all tests of a mechanism.
  static const Probed& probed() {
    static std::map<std::string, Probed> all;
    return all.try_emplace(GetParam().name, GetParam().make(beta), sequences, analysis::ProbeSettings{.controls = 1})
        .first->second;
  }
};

TEST_P(Planted, EveryAblationOfEverySliceDoesWhatItMust) {
  const Probed& p = probed();
  for (std::int64_t s = 0; s < sequences; ++s) {
    EXPECT_NEAR(p.row.intact_nll_sequence[static_cast<std::size_t>(s)],
                std::log(8.0) + p.expected_loss(p.mechanism.intact, s), rounding);
  }
  for (std::size_t a = 0; a < all_ablations.size(); ++a) {
    const analysis::AblationEffects& effects = p.row.effects(all_ablations[a]);
    for (std::size_t slice = 0; slice < p.slices.size(); ++slice) {
      SCOPED_TRACE(analysis::to_string(all_ablations[a]) + " " + p.slices[slice].name());
      const Says* says = p.said(slice, a);
      if (effects.sets[slice].coverage == 0) {
        EXPECT_EQ(says, nullptr);  // what cannot be ablated is in no line
        EXPECT_TRUE(std::isnan(effects.sets[slice].delta_nll.value) && std::isnan(effects.sets[slice].p_adjusted));
        continue;
      }
      for (std::int64_t s = 0; s < sequences; ++s) {
        EXPECT_NEAR(effects.sets[slice].delta_nll_sequence[static_cast<std::size_t>(s)],
                    p.expected_loss(says ? *says : p.mechanism.intact, s) - p.expected_loss(p.mechanism.intact, s),
                    rounding);
      }
    }
  }
}

/// Every line of the table is a loss of the answer for all or half of the tokens: an effect of at least 0.18 nats.
TEST_P(Planted, StatisticsSayWhatIsTrue) {
  const Probed& p = probed();
  for (std::size_t a = 0; a < all_ablations.size(); ++a) {
    const analysis::AblationEffects& effects = p.row.effects(all_ablations[a]);
    for (std::size_t slice = 0; slice < p.slices.size(); ++slice) {
      if (effects.sets[slice].coverage == 0) continue;
      SCOPED_TRACE(analysis::to_string(all_ablations[a]) + " " + p.slices[slice].name());
      const double margin = p.row.margin;
      if (p.said(slice, a)) {
        EXPECT_GT(effects.sets[slice].delta_nll.ci.lower, margin);
        EXPECT_LT(effects.sets[slice].p_adjusted, 0.05);
        EXPECT_GT(effects.sets[slice].p_equivalence_adjusted, 0.5);
        EXPECT_GT(effects.sets[slice].kl, margin);
        EXPECT_LT(effects.sets[slice].top1_agreement, 1);
      } else {
        EXPECT_LT(effects.sets[slice].p_equivalence_adjusted, 0.05);
        EXPECT_LE(std::max(-effects.sets[slice].delta_nll.ci.lower, effects.sets[slice].delta_nll.ci.upper), rounding);
        EXPECT_LE(std::abs(effects.sets[slice].kl), rounding);
        EXPECT_EQ(effects.sets[slice].top1_agreement, 1);
      }
    }
  }
}

TEST_P(Planted, DecisionsAreRightAndSaveSequences) {
  constexpr std::int64_t many = 4 * sequences;
  const Probed p(GetParam().make(beta), many, {.controls = 0, .until_decided = true, .look_every = 16});
  for (std::size_t a = 0; a < all_ablations.size(); ++a) {
    const analysis::AblationEffects& effects = p.row.effects(all_ablations[a]);
    for (std::size_t slice = 0; slice < p.slices.size(); ++slice) {
      if (effects.sets[slice].coverage == 0) continue;
      SCOPED_TRACE(analysis::to_string(all_ablations[a]) + " " + p.slices[slice].name());
      EXPECT_EQ(effects.sets[slice].decision,
                p.said(slice, a) ? analysis::Decision::effect : analysis::Decision::absent);
      EXPECT_LT(effects.sets[slice].sequences_used, many);
    }
  }
  EXPECT_LT(p.row.cost.computed, 0.5 * p.row.cost.undecided);
}

TEST_P(Planted, FindingsTellMassFromCause) {
  const Probed& p = probed();
  const analysis::Findings findings = analysis::find(p.record);
  ASSERT_EQ(findings.dissociation.size(), 2U);
  const analysis::Dissociation& found = findings.dissociation[1];
  const auto is_idle = [&](const char* name) {
    const std::vector<int>& idle = found.of(analysis::MassKind::alpha).idle;
    return std::find(idle.begin(), idle.end(), static_cast<int>(p.index_of(name))) != idle.end();
  };
  if (GetParam().largest) {
    EXPECT_EQ(found.largest_effect, static_cast<int>(p.index_of(GetParam().largest)));
    EXPECT_FALSE(is_idle(GetParam().largest));
    // The reads that feed sublayers without weights put everything on their current source.
    EXPECT_NE(found.largest_mass, found.largest_effect);
    const std::size_t of_mlp_slices = 4;
    ASSERT_EQ(analysis::to_string(analysis::contest_name(of_mlp_slices)), "mlp.slices.alpha");
    const analysis::Contest& contest = found.contests[of_mlp_slices];
    EXPECT_EQ(contest.differ(), contest.heaviest != contest.strongest);
  }
  EXPECT_EQ(is_idle(history_late), GetParam().idle_history);
  // Weights of 0 and 1, or of 1/8 and 7/8, by a fair bit; else the same for every token to the bit.
  const analysis::Content& content = findings.content.at(1);
  const std::size_t last_mlp = 5;
  if (GetParam().content) {
    EXPECT_GT(content.share.at(last_mlp), 0.3);
  } else {
    EXPECT_EQ(content.share.at(last_mlp), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Mechanisms, Planted,
                         ::testing::Values(Case{"OnlyEmbedding", only_embedding, embedding_late, false, false},
                                           Case{"OnlyHistory", only_history, history_late, false, false},
                                           Case{"IdleMass", idle_mass, embedding_late, true, false},
                                           Case{"ChosenRoute", chosen_route, nullptr, false, true},
                                           Case{"IdleChoice", idle_choice, embedding_late, true, true}),
                         [](const auto& param) { return std::string(param.param.name); });

/// Eight controls of one slice under `mask`.
analysis::AblationEffects controlled(const Mechanism& mechanism, const char* slice) {
  const analysis::ProbeTokens tokens = draw_text(mechanism.intact, right, sequences, seed);
  return testing::probe_of(mechanism.machine.model(), tokens, {.seed = seed, .sets = {slice}, .controls = 8})
      .effects(analysis::Ablation::mask);
}

/// In (a) a control of the embedding is the embedding or the empty current source.
TEST(PlantedControls, HaveTheEffectOfWhatTheyTakeFromTheSet) {
  const analysis::AblationEffects effects = controlled(only_embedding(beta), embedding_late);
  std::printf("control overlap %.3f\n", effects.sets[0].control.overlap);
  ASSERT_LT(effects.sets[0].control.overlap, 1);
  ASSERT_GT(effects.sets[0].control.overlap, 0);
  // Weights of 1/2 come from logits of 120, which f32 has to 2^-17.
  EXPECT_NEAR(effects.sets[0].control.delta_nll, effects.sets[0].control.overlap * effects.sets[0].delta_nll.value,
              0x1p-16);
  EXPECT_GT(effects.sets[0].control.excess.ci.lower, 0);
  EXPECT_LT(effects.sets[0].control.excess_p_adjusted, 0.05);
}

/// In (c) other sources with as much mass as idle history hold the answer.
TEST(PlantedControls, MassElsewhereMattersMoreThanIdleMass) {
  const analysis::AblationEffects effects = controlled(idle_mass(beta), history_late);
  EXPECT_LT(std::abs(effects.sets[0].delta_nll.value), rounding);
  EXPECT_GT(effects.sets[0].control.delta_nll, 0.01);
  EXPECT_LT(effects.sets[0].control.excess.ci.upper, 0);
}

}  // namespace
}  // namespace routescope::planted
