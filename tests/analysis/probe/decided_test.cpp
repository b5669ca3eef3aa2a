// A probe that stops early says what the full one says of the sequences it took; summaries follow from the sequences;
// token classes count what they say.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "analysis/probe/jobs.h"
#include "analysis/probe/probe.h"
#include "analysis/probe/summarize.h"
#include "analysis/statistics/sequential.h"
#include "analysis/statistics/statistics.h"
#include "data/base/error.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"
#include "tests/data/base/expect_error.h"

namespace routescope::analysis {
namespace {

using testing::micro_config;
using testing::micro_model;
using testing::micro_tokens;
using testing::probe_of;

model::Model block_sum_model() {
  return testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
}

/// Above the loss of these models, so that there is a margin.
constexpr double learned_from = 5;

TEST(Decide, ByTheConfidenceSequenceAndTheMargin) {
  std::vector<double> near_zero, far, wide;
  for (int i = 0; i < 40; ++i) {
    const double noise = i % 2 ? 1.0 : -1.0;
    near_zero.push_back(1e-4 * noise);
    far.push_back(1 + 0.1 * noise);
    wide.push_back(noise);
  }
  EXPECT_EQ(decide(near_zero, 18, 0.01), Decision::absent);
  EXPECT_EQ(decide(near_zero, 18, 1e-5), Decision::open);
  EXPECT_EQ(decide(far, 18, 0.01), Decision::effect);
  EXPECT_EQ(decide(far, 18, 2.0), Decision::absent);  // not zero, and yet within the margin
  EXPECT_EQ(decide(wide, 18, 0.01), Decision::open);
  EXPECT_EQ(decide(std::span(far).first(4), 1, 0.01), Decision::open);
  // More sets tested at once ask for more: somewhere between, the decision falls for one and not for many.
  std::size_t alone = 0, among = 0;
  for (std::size_t n = 200; n > 0; --n) {
    std::vector<double> weak;
    for (std::size_t i = 0; i < n; ++i) weak.push_back(0.7 + (i % 2 ? 1.0 : -1.0));
    if (decide(weak, 1, 0.01) == Decision::effect) alone = n;
    if (decide(weak, 1000, 0.01) == Decision::effect) among = n;
  }
  EXPECT_GT(alone, 0U);
  EXPECT_GT(among, alone);
}

/// `cut` is `full` as if it had ended after the look that decided. Returns the number of sequences used.
std::size_t expect_cut(const SetEffect& full, const SetEffect& cut, std::size_t tested, const ProbeSettings& settings,
                       double margin) {
  const std::size_t sequences = full.delta_nll_sequence.size();
  const auto look_every = static_cast<std::size_t>(settings.look_every);
  EXPECT_EQ(full.sequences_used, static_cast<double>(sequences));
  std::size_t used = 0;
  Decision expected = Decision::open;
  while (used < sequences && expected == Decision::open) {
    used = std::min(used + look_every, sequences);
    expected = decide(std::span(full.delta_nll_sequence).first(used), tested, margin);
  }
  EXPECT_EQ(cut.decision, expected);
  EXPECT_EQ(cut.sequences_used, static_cast<double>(used));
  for (std::size_t i = 0; i < sequences; ++i) {
    const double effect = cut.delta_nll_sequence[i], control = cut.control.delta_nll_sequence[i];
    if (i < used) {
      EXPECT_EQ(effect, full.delta_nll_sequence[i]);
      EXPECT_TRUE(control == full.control.delta_nll_sequence[i] || !(full.control.coverage > 0));
    } else {
      EXPECT_TRUE(std::isnan(effect) && std::isnan(control));
    }
  }
  const auto values = std::span(full.delta_nll_sequence).first(used);
  const Interval interval = confidence_sequence(values);
  EXPECT_EQ(cut.delta_nll.value, mean(values));
  EXPECT_EQ(cut.delta_nll.ci.lower, interval.lower);
  EXPECT_EQ(cut.delta_nll.ci.upper, interval.upper);
  EXPECT_EQ(cut.p_value, sequential_p_value(values, settings.look_every));
  EXPECT_TRUE(std::isnan(cut.p_equivalence));
  std::vector<double> excess;
  for (std::size_t i = 0; i < used; ++i) excess.push_back(values[i] - full.control.delta_nll_sequence[i]);
  if (!(full.control.coverage > 0)) return used;
  EXPECT_EQ(cut.control.excess.value, mean(excess));
  EXPECT_EQ(cut.control.excess.ci.lower, confidence_sequence(excess).lower);
  EXPECT_EQ(cut.control.excess_p, sequential_p_value(excess, settings.look_every));
  return used;
}

TEST(UntilDecided, IsTheFullProbeCutAtTheDecision) {
  const model::Model model = block_sum_model();
  constexpr std::size_t sequences = 52, look_every = 8;  // the last block is shorter
  const ProbeTokens tokens = testing::micro_tokens(sequences, 8);
  ProbeIdentity identity = identify(model.config(), tokens,
                                    {.seed = 3,
                                     .ablations = {Ablation::mask, Ablation::freeze},
                                     .controls = 1,
                                     .margin = 0.3,
                                     .look_every = look_every,
                                     .by_repeat = true});
  const ProbeRow full =
      probe(model, identity, 0, *kernels::single_communicator(), {.reference_nll = learned_from, .batch_bytes = 1});
  identity.settings.until_decided = true;
  const ProbeRow cut =
      probe(model, identity, 0, *kernels::single_communicator(), {.reference_nll = learned_from, .batch_bytes = 1});
  EXPECT_EQ(cut.intact_nll_sequence, full.intact_nll_sequence);
  EXPECT_EQ(cut.mass, full.mass);
  EXPECT_EQ(full.reference_nll, learned_from);
  EXPECT_DOUBLE_EQ(full.margin, 0.3 * (learned_from - full.intact_nll));
  int early = 0, open = 0;
  double rows_saved = 0;
  for (Ablation ablation : identity.settings.ablations) {
    const AblationEffects &all = full.effects(ablation), &some = cut.effects(ablation);
    for (std::size_t s = 0; s < num_slices; ++s) {
      SCOPED_TRACE(to_string(ablation) + " " + std::to_string(s));
      EXPECT_EQ(all.sets[s].decision, Decision::open);
      if (!(all.sets[s].coverage > 0)) {
        EXPECT_TRUE(std::isnan(some.sets[s].sequences_used) && std::isnan(some.sets[s].delta_nll.value));
        EXPECT_EQ(some.sets[s].decision, Decision::open);
        continue;
      }
      const std::size_t used = expect_cut(all.sets[s], some.sets[s], all.tested(), identity.settings, full.margin);
      early += used < sequences;
      open += some.sets[s].decision == Decision::open;
      rows_saved += static_cast<double>(sequences - used);
    }
  }
  EXPECT_GT(early, 3);
  EXPECT_GT(open, 0);
  EXPECT_EQ(cut.cost.undecided, full.cost.computed);
  EXPECT_LT(cut.cost.computed, cut.cost.undecided);
  // Each spared sequence of a set spares at most nine passes (it and all of its controls of either kind).
  EXPECT_GE(cut.cost.computed, cut.cost.undecided - (rows_saved + sequences) * 9 * 8 * 13);
}

TEST(UntilDecided, KlAgreementAndClassesAreMeansOverTheSequencesOfTheSet) {
  const model::Model model = block_sum_model();
  const ProbeTokens tokens = testing::micro_tokens(24, 8);
  ProbeSettings settings{
      .seed = 3, .ablations = {Ablation::mask}, .controls = 0, .margin = 0.3, .look_every = 8, .by_repeat = true};
  settings.until_decided = true;
  const auto measured = [&](const ProbeTokens& of) {
    return probe(model, identify(model.config(), of, settings), 0, *kernels::single_communicator(),
                 {.reference_nll = 20});
  };
  const ProbeRow cut = measured(tokens);
  settings.until_decided = false;
  const ProbeRow all = measured(tokens), some = measured(tokens.first(16));
  int early = 0;
  for (std::size_t s = 0; s < num_slices; ++s) {
    const SetEffect& found = cut.ablations[0].sets[s];
    if (!(found.coverage > 0)) continue;
    ASSERT_TRUE(found.sequences_used == 16 || found.sequences_used == 24);
    const SetEffect& expected = (found.sequences_used == 16 ? some : all).ablations[0].sets[s];
    early += found.sequences_used == 16;
    EXPECT_NEAR(found.kl, expected.kl, 1e-12 + 1e-9 * expected.kl) << s;
    EXPECT_NEAR(found.top1_agreement, expected.top1_agreement, 1e-12) << s;
    for (std::size_t label = 0; label < found.delta_nll_class[0].size(); ++label)
      EXPECT_NEAR(found.delta_nll_class[0][label], expected.delta_nll_class[0][label], 1e-9) << s;
  }
  EXPECT_GT(early, 0);
}

TEST(Cost, CountsReadsFromTheFirstThatIsTouched) {
  const model::Model model = block_sum_model();
  const ProbeTokens tokens = testing::micro_tokens(2, 8);
  const double n = 16, reads = 13;
  ProbeSettings settings{.ablations = {Ablation::zero}, .sets = {"3.attn:block_1", "final"}, .controls = 0};
  const ProbeRow row = probe_of(model, tokens, settings);
  EXPECT_EQ(row.cost.plain, n * reads);
  EXPECT_EQ(row.cost.computed, n * (2 * reads + (reads - 6) + 1));
  EXPECT_EQ(row.cost.unshared, n * 4 * reads);
  EXPECT_EQ(row.cost.undecided, row.cost.computed);
  EXPECT_GE(row.cost.seconds, row.cost.plain_seconds);
  // Of `final`, every source, no control can differ; those of 3.attn are in the same read.
  settings.controls = 3;
  for (Ablation ablation : {Ablation::zero, Ablation::patch}) {
    settings.ablations = {ablation};
    const ProbeRow controlled =
        probe_of(model, tokens, settings, 0, ablation == Ablation::patch ? tokens : ProbeTokens{});
    const SetEffect& set = controlled.ablations[0].sets[0];
    double controls = 0;
    for (Matched matched : {Matched::alpha, Matched::contribution}) {
      const bool by_alpha = matched == Matched::alpha;
      const Controls made =
          make_controls(model.plan(), ablation, route_sets(settings.sets, model.plan()).front(),
                        by_alpha ? controlled.alpha_mean : controlled.contribution_mean, settings.seed, 0, matched, 16);
      EXPECT_EQ(made.enumerated, (by_alpha ? set.control : set.contribution_control).enumerated);
      controls += made.enumerated ? static_cast<double>(made.draws.size()) : 8;  // two documents, 16 draws in all
    }
    EXPECT_GT(controls, 2);
    const double intact = ablation == Ablation::patch ? 3 : 2;
    EXPECT_EQ(controlled.cost.computed, n * (intact * reads + (1 + controls) * (reads - 6) + 1));
    EXPECT_EQ(controlled.ablations[0].sets[1].control.coverage, 0);
    EXPECT_TRUE(std::isnan(controlled.ablations[0].sets[1].control.excess.value));
  }
  settings.ablations = {};
  EXPECT_EQ(probe_of(model, tokens, settings).cost.computed, n * reads);
}

TEST(TokenClasses, CountPositionsAndRepeats) {
  const ProbeTokens tokens{2, 6, {5, 5, 7, 5, 8, 7, 1, 2, 3, 4, 5, 1}, "by hand"};
  const auto classes = token_classes(tokens, {.by_position = true, .by_repeat = true});
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].name, "position");
  EXPECT_EQ(classes[0].labels, (std::vector<std::string>{"1", "2-3", "4-5"}));
  EXPECT_EQ(classes[0].of_token, (std::vector<int>{0, 1, 1, 2, 2, 0, 1, 1, 2, 2}));
  EXPECT_EQ(classes[1].labels, (std::vector<std::string>{"first", "repeat"}));
  EXPECT_EQ(classes[1].of_token, (std::vector<int>{1, 0, 1, 0, 1, 0, 0, 0, 0, 1}));
}

class ClassFile : public ::testing::Test {
 protected:
  std::string file(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  std::string error(const std::string& text) {
    try {
      token_classes(testing::micro_tokens(1, 4), {.class_file = file(text)});
    } catch (const data::Error& wrong) {
      const std::string what = wrong.what();
      return what.substr(what.find(": ") + 2);
    }
    return "no error";
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string path_ = ::testing::TempDir() + "token_classes_" + std::to_string(::getpid()) + ".json";
};

TEST_F(ClassFile, NamesItsClassesInItsOrder) {
  const ProbeTokens tokens{1, 5, {3, 9, 4, 2, 9}, "by hand"};
  const auto classes = token_classes(tokens, {.class_file = file(R"({"verb": [9], "name": [1, 2]})")});
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_EQ(classes[0].name, "class");
  EXPECT_EQ(classes[0].labels, (std::vector<std::string>{"verb", "name"}));
  EXPECT_EQ(classes[0].of_token, (std::vector<int>{0, -1, 1, 0}));
}

TEST_F(ClassFile, SaysWhatIsWrongInIt) {
  EXPECT_EQ(error("{}").find("found no class, expected an object"), 0U);
  EXPECT_EQ(error("[1]").find("found array, expected an object"), 0U);
  EXPECT_EQ(error("{\"a\": 3}"), "class 'a': found number, expected token ids");
  EXPECT_EQ(error("{\"a\": [-3]}"), "class 'a': found -3, expected a token id");
  EXPECT_EQ(error("{\"a\": [3], \"b\": [3]}"), "id 3: is in class 'a' and in 'b', expected one class");
  EXPECT_EQ(error("{").find("not JSON: "), 0U);
}

TEST_F(ClassFile, EffectsOfAClassAreTheMeanOverItsTokens) {
  const model::Model model = block_sum_model();
  constexpr std::size_t sequences = 3, positions = 9;
  const ProbeTokens tokens = testing::micro_tokens(sequences, positions);
  std::string low = "{\"low\": [0", none = "], \"none\": [1000]}";
  for (int id = 1; id < 18; ++id) low += ", " + std::to_string(id);
  const ProbeSettings settings{
      .ablations = {Ablation::mask}, .controls = 0, .by_position = true, .class_file = file(low + none)};
  const ProbeRow row = probe_of(model, tokens, settings);
  const auto classes = token_classes(tokens, settings);
  const AblationEffects& effects = row.ablations.front();
  const std::size_t s = 16;
  model::Pass pass(model, sequences, positions, model::Pass::Kind::infer);
  std::vector<std::int32_t> targets(tokens.ids.begin() + 1, tokens.ids.end());
  targets.push_back(0);
  std::vector<float> intact(targets.size()), changed(targets.size());
  pass.forward(tokens.ids);
  pass.nll(targets, intact);
  const PreparedAblation mask = prepare_ablation(model, Ablation::mask, whole(slice_sets(model.plan())[s]), {}, {});
  pass.forward(tokens.ids, &mask.intervention);
  pass.nll(targets, changed);
  ASSERT_EQ(effects.sets[s].delta_nll_class.size(), 2U);
  for (std::size_t c = 0; c < 2; ++c) {
    const std::size_t labels = classes[c].labels.size();
    std::vector<double> sum(labels, 0.0), count(labels, 0.0);
    for (std::size_t q = 0; q < sequences; ++q) {
      for (std::size_t t = 0; t + 1 < positions; ++t) {
        const int label = classes[c].of_token[q * (positions - 1) + t];
        if (label < 0) continue;
        sum[static_cast<std::size_t>(label)] +=
            static_cast<double>(changed[q * positions + t]) - intact[q * positions + t];
        ++count[static_cast<std::size_t>(label)];
      }
    }
    for (std::size_t l = 0; l < labels; ++l) {
      const double found = effects.sets[s].delta_nll_class[c][l];
      if (count[l] == 0) {
        EXPECT_TRUE(std::isnan(found)) << classes[c].labels[l];
      } else {
        EXPECT_NEAR(found, sum[l] / count[l], 1e-6) << classes[c].labels[l];
      }
    }
    EXPECT_EQ(classes[c].labels.back() == "none", count.back() == 0);
  }
}

TEST(ProbeErrors, NameWhatPatchingLacks) {
  const model::Model model = block_sum_model();
  const ProbeTokens tokens = testing::micro_tokens(2, 6), other = testing::micro_tokens(2, 5);
  ProbeSettings settings{.ablations = {Ablation::patch}};
  EXPECT_THROW(probe_of(model, tokens, settings), data::UsageError);
  try {
    probe_of(model, tokens, settings, 0, other);
    FAIL() << "no error";
  } catch (const data::Error& error) {
    EXPECT_STREQ(error.what(),
                 "random ids, seed 13: found 2 sequences of 5 tokens, expected 2 of 6, aligned with random ids, seed "
                 "13");
  }
  EXPECT_THROW(probe_of(model, tokens, {.look_every = 0}), data::UsageError);
  EXPECT_THROW(probe_of(model, testing::micro_tokens(sequential_least_n - 1, 6), {.until_decided = true}),
               data::UsageError);
  ProbeTokens apart = testing::micro_tokens(sequential_least_n + 1, 6);
  for (std::int64_t q = 0; q < apart.sequences; ++q) apart.documents.push_back(q / 2);
  EXPECT_NO_THROW(identify(model.config(), apart, {.until_decided = true}));
  apart.documents.back() = 0;
  EXPECT_NO_THROW(identify(model.config(), apart));
  EXPECT_EQ(
      data::error_of([&] { identify(model.config(), apart, {.until_decided = true}); }),
      "--until-decided: random ids, seed 13: found sequences of one document apart from each other, expected them "
      "one after another");
}

}  // namespace
}  // namespace routescope::analysis
