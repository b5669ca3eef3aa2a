// Every verdict and sentence of the claims follows from the findings, for one run and for several, also where these
// contradict the paper. A verdict is absent where it is not true.
#include "analysis/report/claim_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "analysis/routes/slices.h"
#include "tests/analysis/findings/study_case.h"

namespace routescope::analysis {
namespace {

using testing::slice_index;

StudyRun run_of(std::uint64_t seed) {
  StudyRun run;
  run.name = "study-" + std::to_string(seed);
  run.record = testing::study_record(seed);
  return run;
}

Study study_of(std::size_t runs, bool baseline = false) {
  std::vector<StudyRun> all;
  for (std::size_t seed = 1; seed <= runs; ++seed) all.push_back(run_of(seed));
  std::vector<StudyBaseline> baselines;
  if (baseline) baselines.push_back({"wrapped", testing::study_baseline(), {}});
  return make_study(std::move(all), std::move(baselines));
}

std::string joined(const Claim& claim) {
  std::string out = claim.verdict + "\n";
  for (const std::string& sentence : claim.evidence) out += sentence + "\n";
  return out;
}
std::string said(const Study& study, std::size_t claim) {
  return joined(claims_of(study).at(claim));
}
std::string verdict(const Study& study, std::size_t claim) {
  return claims_of(study).at(claim).verdict;
}
std::string tone(const Study& study, std::size_t claim) {
  return claims_of(study).at(claim).tone;
}
void expect_said(const Study& study, std::size_t claim, const std::string& part) {
  EXPECT_NE(said(study, claim).find(part), std::string::npos) << said(study, claim) << "lacks " << part;
}
void expect_silent(const Study& study, std::size_t claim, const std::string& part) {
  EXPECT_EQ(said(study, claim).find(part), std::string::npos) << said(study, claim);
}

// ---- claim 1 ----

TEST(WrappedClaim, IsNotExaminedWithoutABaseline) {
  const Study study = study_of(1);
  EXPECT_EQ(tone(study, 0), "open");
  EXPECT_EQ(verdict(study, 0), "Not examined: no wrapped baseline was given (--baseline)");
  expect_said(study, 0, "Trained with routing: ");
  expect_silent(study, 0, "over runs");
}

TEST(WrappedClaim, HoldsToRoundingOrNot) {
  Study study = study_of(1, true);
  EXPECT_EQ(tone(study, 0), "yes");
  EXPECT_EQ(verdict(study, 0), "Holds for the wrapped baseline");
  expect_said(study, 0, "at most 5.0e\u221208");
  expect_said(study, 0, "within f32 rounding");
  expect_said(study, 0, "replacing the weights of any one slice by their means changes the loss by at most");
  ProbeRow& row = study.baselines[0].record.rows.back();
  row.closed_form_error = 1e-3;
  EXPECT_EQ(tone(study, 0), "no");
  EXPECT_EQ(verdict(study, 0), "Holds for 0 of 1 wrapped baselines");
  expect_said(study, 0, "beyond f32 rounding");
  row.closed_form_error = std::nan("");
  EXPECT_EQ(tone(study, 0), "no");
  expect_said(study, 0, "its weights have no closed form");
  row.closed_form_error = 5e-8;
  row.alpha_variance[5] = 1e-3;
  EXPECT_EQ(tone(study, 0), "no");
}

TEST(WrappedClaim, CountsSeveralBaselines) {
  Study study = study_of(1, true);
  study.baselines.push_back(study.baselines[0]);
  EXPECT_EQ(verdict(study, 0), "Holds for the wrapped baselines");
  study.baselines[1].record.rows.back().closed_form_error = 1;
  EXPECT_EQ(tone(study, 0), "part");
  EXPECT_EQ(verdict(study, 0), "Holds for 1 of 2 wrapped baselines");
}

// ---- claim 2 ----

constexpr std::size_t rows = 6;  // of the study
constexpr double unmeasured = nan;

/// A motif of one slice with the same numbers at every row, whose tests all succeed but `failing` ("" none).
Motif motif(double excess, double MotifTests::*failing = nullptr, double p = 0.5) {
  Motif out;
  out.name = "embedding_early_mlp";
  out.slices = {3};
  out.of_paper = true;
  MotifTests tests{0.001, 0.001, 0.001, 0.001, 0.001};
  if (failing) tests.*failing = p;
  const auto curve = [](double value) {
    return std::vector<Estimate>(rows, Estimate{value, {value - 0.1, value + 0.1}});
  };
  out.effect = curve(excess + 0.1);
  out.control = curve(0.1);
  out.excess = out.contribution_excess = out.change = curve(excess);
  out.mass = out.contribution = curve(0.2);
  out.tests.assign(rows, tests);
  out.p.assign(rows, tests.largest());
  out.p.front() = 1;
  if (out.p.back() < 0.05) out.shown_from = 1;
  return out;
}

TEST(MotifClaim, CountsTheMotifsThatAreShown) {
  Study study = study_of(1);
  Findings& findings = study.runs[0].findings;
  findings.motifs = {motif(0.5), motif(0.4)};
  EXPECT_EQ(tone(study, 1), "yes");
  EXPECT_EQ(verdict(study, 1), "2 of 2 motifs shown");
  expect_said(study, 1, "No slice outside the three is shown");
  expect_said(study, 1,
              "At step 0, where nothing was learned, 2 of 3 exceed both controls");  // of these made-up numbers
  expect_silent(study, 1, "Not shown");
  findings.motifs = {motif(0.5), motif(0.05, &MotifTests::excess)};
  EXPECT_EQ(tone(study, 1), "part");
  EXPECT_EQ(verdict(study, 1), "1 of 2 motifs shown");
  expect_said(study, 1,
              "Not shown: it is not shown to matter more, by the margin, than other sources of the same weight.");
  findings.motifs = {motif(-0.5, &MotifTests::excess)};
  EXPECT_EQ(tone(study, 1), "no");
  EXPECT_EQ(verdict(study, 1), "None of 1 motifs shown");
  expect_silent(study, 1, "Shown from step");
}

TEST(MotifClaim, SaysHowMuchOfItItsControlsAre) {
  Study study = study_of(1);
  study.runs[0].findings.motifs = {motif(0.5)};
  SetEffect& set = study.runs[0].record.rows.back().ablations.front().sets[3];
  set.coverage = set.control.coverage = 1;
  set.control.overlap = unmeasured;
  expect_said(study, 1, "more than other sources of the same weight, ");
  set.control.coverage = 0.5;
  set.control.overlap = 0.83;
  expect_said(study, 1, "more than other sources of the same weight (overlap 0.83; they can differ in 50.0");
  set.control.coverage = 1;
  expect_said(study, 1, "more than other sources of the same weight (overlap 0.83), ");
}

TEST(MotifClaim, SaysWhichTestFails) {
  Study study = study_of(1);
  const std::pair<double MotifTests::*, const char*> tests[] = {
      {&MotifTests::excess, "other sources of the same weight."},
      {&MotifTests::contribution_excess,
       "it is not shown to matter more, by the margin, than other sources of the same contribution"},
      {&MotifTests::change, "its excess over both is not shown to be larger, by the margin, than at step 0"},
      {&MotifTests::localised, "another slice of its sublayer and depth may matter as much, but for the margin"},
      {&MotifTests::learned, "the model is not shown to have learned enough"}};
  for (const auto& [test, text] : tests) {
    study.runs[0].findings.motifs = {motif(0.5, test)};
    const std::string all = said(study, 1);
    for (const auto& [other, other_text] : tests) {
      const bool found =
          all.find(std::string("Not shown: ") +
                   (other == &MotifTests::excess ? "it is not shown to matter more, by the margin, than " : "") +
                   other_text) != std::string::npos;
      EXPECT_EQ(found, other == test) << all << other_text;
    }
  }
  Motif adjusted = motif(0.5);
  adjusted.p.back() = 0.06;
  adjusted.shown_from = unmeasured;
  study.runs[0].findings.motifs = {adjusted};
  expect_said(study, 1, "Not shown: not after the adjustment for three motifs (p = 0.06).");
  study.runs[0].findings.motifs = {motif(0.5, &MotifTests::contribution_excess, unmeasured)};
  expect_said(study, 1, "Not shown: no control of the same contribution can differ from it.");
  study.runs[0].findings.motifs[0].tests.back().change = unmeasured;  // for want of the control, not of step 0
  expect_said(study, 1, "Not shown: no control of the same contribution can differ from it.");
  study.runs[0].findings.motifs[0].slices = {12, 15};
  expect_said(study, 1, "Not shown: no control of the same contribution can differ from one of its slices at least.");
}

TEST(MotifClaim, IsNotDecidedWithoutControlsOrEffects) {
  Study study = study_of(1);
  Findings& findings = study.runs[0].findings;
  findings.motifs = {motif(unmeasured)};
  EXPECT_EQ(tone(study, 1), "open");
  expect_said(study, 1, "The probes hold no ablation of the 18 slices.");
  findings.motifs[0].effect.assign(rows, {0.5, {0.4, 0.6}});
  EXPECT_EQ(verdict(study, 1),
            "Not decided: no motif has controls that can differ from it and of which the spread is known");
  expect_silent(study, 1, "No slice outside");
  findings.motifs = {};
  EXPECT_EQ(verdict(study, 1), "Not measured");
}

TEST(MotifClaim, NamesOtherSlicesTheStrongestFirst) {
  Study study = study_of(1);
  Motif weak = motif(0.2), strong = motif(0.4);
  weak.of_paper = strong.of_paper = false;
  weak.slices = {7};
  strong.slices = {11};
  study.runs[0].findings.motifs = {motif(0.5), weak, strong};
  expect_said(
      study, 1,
      "Not only these: 2 more slices are shown to exceed both controls, and to do so more than at step 0 (excess "
      "over the same weight, nats per token): history \u2192 late MLP (+0.400) and history \u2192 mid attention "
      "(+0.200).");
  study.runs[0].findings.motifs.pop_back();
  expect_said(study, 1, "1 more slice is shown to exceed both controls");
}

TEST(MotifClaim, DatesAMotifOnlyWhereStepsAllowIt) {
  const Study study = study_of(1);
  expect_said(study, 1, "embedding \u2192 early MLP: ablating it (mask) costs +0.4");
  expect_said(study, 1, " of what was learned");
  expect_said(study, 1, "; half of its excess was there by step 3 [2, 4].");
}

TEST(MotifClaim, SaysInHowManyRunsAMotifIsShown) {
  Study study = study_of(3);
  EXPECT_EQ(verdict(study, 1), "2 of 3 motifs shown");
  expect_said(study, 1, "; in 3 of 3 runs taken alone it is shown");
  expect_said(study, 1, "history \u2192 late attention: ");
  for (Motif& own : study.runs[1].findings.motifs) own.shown_from = std::nan("");
  expect_said(study, 1, "; in 2 of 3 runs taken alone it is shown");
  expect_silent(study, 1, "in 3 of 3 runs");
  expect_silent(study_of(1), 1, "taken alone");
}

// ---- claim 3 ----

/// Gives every run of the study, and all together, the same dissociation at the last step.
void set_dissociation(Study& study, const Dissociation& row) {
  for (StudyRun& run : study.runs) run.findings.dissociation.back() = row;
  if (study.pooled) study.pooled->dissociation.back() = row;
}

Dissociation dissociated() {
  Dissociation row;
  for (MassAgainstEffect& mass : row.mass) {
    mass.free_mass.assign(num_slices, 0.25);
    mass.rank_correlation = mass.over.tau = 0.2;
    mass.idle = {7};
  }
  row.largest_mass = 3;
  row.largest_effect = 12;
  for (std::size_t c = 0; c < num_contests; ++c) {
    const bool families = contest_name(c).families;
    row.contests[c] = {families ? 1 : 6, families ? 0 : 12, 0.0001, 0.001};
  }
  return row;
}

TEST(DissociationClaim, JudgesBothHalves) {
  Study study = study_of(1);
  Dissociation row = dissociated();
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "yes");
  EXPECT_EQ(
      verdict(study, 2),
      "The heaviest is shown not to be the strongest in 4 of 4 comparisons by weight, 4 of 4 by contribution; some "
      "slice is shown to be idle");
  expect_said(study, 2, "families of MLP: history and embedding, shown to differ (p = 0.001)");
  expect_said(study, 2, "Idle by weight, which means a free weight of 0.1 or more");
  expect_said(study, 2, "At step 0, where nothing was learned, 0 of 8 comparisons differ");
  row.mass[0].idle = {};
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "part");
  expect_said(study, 2, "No slice is shown to be idle by weight");
  for (Contest& contest : row.contests) contest.p_adjusted = 0.3;
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "open");
  expect_said(study, 2, "in 0 of 4 comparisons by weight, 0 of 4 by contribution; no slice is shown to be idle");
  expect_said(study, 2, "not shown to differ (p = 0.3)");
  expect_silent(study, 2, ", shown to differ");
  for (Contest& contest : row.contests) contest.strongest = contest.heaviest;
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "open");
  expect_said(study, 2, "families of MLP: history is both, as observed");
}

TEST(DissociationClaim, IsOpenWhereNothingWasTested) {
  Study study = study_of(1);
  set_dissociation(study, Dissociation{});
  EXPECT_EQ(verdict(study, 2), "Not measured");
  study.runs[0].findings.dissociation = {};
  EXPECT_EQ(verdict(study, 2), "Not measured");
}

TEST(DissociationClaim, SaysWhatTauShows) {
  Study study = study_of(1);
  Dissociation row = dissociated();
  const char *more = "heavier slices tend to matter more", *less = "heavier slices tend to matter less";
  for (const auto& [lower, upper, meaning] :
       {std::tuple{0.1, 0.6, more}, std::tuple{-0.6, -0.1, less}, std::tuple{-0.1, 0.6, ""}}) {
    for (MassAgainstEffect& mass : row.mass) mass.over = {(lower + upper) / 2, {lower, upper}, 0.01, 153};
    set_dissociation(study, row);
    for (const char* text : {more, less}) {
      if (std::string(text) == meaning) {
        expect_said(study, 2, text);
      } else {
        expect_silent(study, 2, text);
      }
    }
  }
}

// ---- what no verdict may be given of ----

TEST(Claims, GiveNoVerdictOnAModelThatHasLearnedNothing) {
  StudyRun run = run_of(1);
  for (ProbeRow& row : run.record.rows) row.intact_nll_sequence = run.record.rows[0].intact_nll_sequence;
  const Study study = make_study({run});
  for (std::size_t claim : {1, 2}) {
    EXPECT_EQ(tone(study, claim), "open");
    EXPECT_EQ(
        verdict(study, claim),
        "Nothing to judge: the model is not shown to have learned more since step 0 than an ablation changes there");
    for (const char* text : {"Shown from", ", shown to differ", "Idle by", "tend to matter", "shown to exceed"})
      expect_silent(study, claim, text);
  }
}

TEST(Claims, GiveNoVerdictWithoutStepZero) {
  StudyRun run = run_of(1);
  run.record.rows.erase(run.record.rows.begin());
  const Study study = make_study({run});
  for (std::size_t claim : {1, 2}) {
    EXPECT_EQ(tone(study, claim), "open");
    EXPECT_EQ(verdict(study, claim), "Not judged: there is no probe of step 0 to hold it against");
    for (const char* text : {"Shown from", ", shown to differ", "Idle by", "tend to matter"})
      expect_silent(study, claim, text);
  }
}

TEST(Claims, GiveNoVerdictOnStepZeroItself) {
  StudyRun run = run_of(1);
  run.record.rows.resize(1);
  const Study study = make_study({run});
  for (std::size_t claim : {1, 2}) {
    EXPECT_EQ(tone(study, claim), "open");
    for (const char* text : {"Shown from", ", shown to differ", "Idle by", "tend to matter"})
      expect_silent(study, claim, text);
  }
}

TEST(Claims, GiveNoVerdictOnOlderFiles) {
  StudyRun run = run_of(1);
  run.record.identity.version = 2;
  EXPECT_EQ(verdict(make_study({run}), 1), "Not judged: the file is of version 2, which measured less: probe again");
}

TEST(Claims, WarnOfFewOrUnknownDocuments) {
  const char *few = "are too few to rely on them", *unknown = "The documents of the probe sequences are not known";
  expect_silent(study_of(1), 1, few);
  expect_silent(study_of(1), 1, unknown);
  StudyRun run = run_of(1);
  for (std::size_t i = 0; i < run.record.identity.tokens.documents.size(); ++i)
    run.record.identity.tokens.documents[i] = static_cast<std::int64_t>(i / 3);
  expect_said(make_study({run}), 1, "come from 11 documents: intervals and tests count documents, and fewer than 16");
  EXPECT_EQ(verdict(make_study({run}), 2),
            "Not judged: the probe sequences come from 11 documents, and fewer than 16 are too few");
  run.record.identity.tokens.documents = {};
  expect_said(make_study({run}), 2, unknown);
  expect_silent(make_study({run}), 2, few);
}

// ---- all three ----

TEST(Claims, FollowFromThePlantedNumbers) {
  const Study study = study_of(3, true);
  EXPECT_EQ(tone(study, 0), "yes");
  expect_said(study, 0, "mean over runs; from ");
  EXPECT_EQ(verdict(study, 1), "2 of 3 motifs shown");
  EXPECT_EQ(tone(study, 2), "part");
  // History weighs the most in attention, and only the current state does anything there.
  expect_said(study, 2, "families of attention: history and current, shown to differ (p < 0.001)");
  expect_said(study, 2, "Idle by weight");
}

TEST(Claims, AreNotMadeOfAnUnprobedRun) {
  EXPECT_TRUE(claims_of(make_study({StudyRun{}})).empty());
}

TEST(Claims, SpeakOfTheFirstRunWhereRunsAreNotPooled) {
  StudyRun other = run_of(2);
  other.record.identity.settings.margin = 0.5;
  const Study study = make_study({run_of(1), other});
  ASSERT_FALSE(study.pooled);
  EXPECT_EQ(said(study, 2), said(study_of(1), 2));
}

}  // namespace
}  // namespace routescope::analysis
