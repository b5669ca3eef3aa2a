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

Motif motif(double excess, double half_width) {
  Motif out;
  out.name = "embedding_early_mlp";
  out.slices = {3};
  out.of_paper = true;
  out.effect = {{excess + 0.1, {excess, excess + 0.2}}};
  out.control = {{0.1, {0.09, 0.11}}};
  out.excess = {{excess, {excess - half_width, excess + half_width}}};
  out.mass = {{0.2, {0.1, 0.3}}};
  if (excess > half_width) out.shown_from = 16;
  return out;
}

TEST(MotifClaim, CountsTheMotifsThatAreShown) {
  Study study = study_of(1);
  Findings& findings = study.runs[0].findings;
  findings.motifs = {motif(0.5, 0.1), motif(0.4, 0.1)};
  EXPECT_EQ(tone(study, 1), "yes");
  EXPECT_EQ(verdict(study, 1), "2 of 2 motifs shown above their controls");
  expect_said(study, 1, "No slice outside the three is shown to exceed its control.");
  findings.motifs = {motif(0.5, 0.1), motif(0.05, 0.1)};
  EXPECT_EQ(tone(study, 1), "part");
  EXPECT_EQ(verdict(study, 1), "1 of 2 motifs shown above their controls");
  expect_said(study, 1, "not shown to be more.");
  findings.motifs = {motif(-0.5, 0.1)};
  EXPECT_EQ(tone(study, 1), "no");
  EXPECT_EQ(verdict(study, 1), "None of 1 motifs shown above their controls");
  expect_said(study, 1, "the other sources matter more.");
  expect_silent(study, 1, "shown from step");
}

TEST(MotifClaim, IsNotDecidedWithoutControlsOrEffects) {
  Study study = study_of(1);
  Findings& findings = study.runs[0].findings;
  findings.motifs = {motif(std::nan(""), 0)};
  EXPECT_EQ(tone(study, 1), "open");
  expect_said(study, 1, "not tested");
  findings.motifs[0].effect = {{0.5, {0.4, 0.6}}};
  EXPECT_EQ(verdict(study, 1), "Not decided: effects were measured without controls");
  expect_said(study, 1, "no control was measured");
  expect_silent(study, 1, "No slice outside");
  findings.motifs = {};
  EXPECT_EQ(verdict(study, 1), "Not measured");
}

TEST(MotifClaim, NamesOtherSlicesTheStrongestFirst) {
  Study study = study_of(1);
  Motif weak = motif(0.2, 0.1), strong = motif(0.4, 0.1);
  weak.of_paper = strong.of_paper = false;
  weak.slices = {7};
  strong.slices = {11};
  study.runs[0].findings.motifs = {motif(0.5, 0.1), weak, strong};
  expect_said(
      study, 1,
      "Not only these: 2 more slices are shown to exceed their controls (excess, nats per token): history \u2192 "
      "late MLP (+0.400) and history \u2192 mid attention (+0.200).");
  study.runs[0].findings.motifs.pop_back();
  expect_said(study, 1, "1 more slice is shown to exceed its control (excess");
}

TEST(MotifClaim, DatesAMotifOnlyWhereStepsAllowIt) {
  const Study study = study_of(1);
  expect_said(study, 1, "embedding \u2192 early MLP: ablating it (mask) costs +0.5");
  expect_said(study, 1, "; onset by cause: 4 [4, 4], by mass: not shown.");
  StudyRun run = run_of(1);
  run.record.rows.erase(run.record.rows.begin(), run.record.rows.end() - 1);
  expect_silent(make_study({run}), 1, "onset");
}

TEST(MotifClaim, SaysInHowManyRunsAMotifIsShown) {
  Study study = study_of(3);
  EXPECT_EQ(verdict(study, 1), "2 of 3 motifs shown above their controls");
  expect_said(study, 1, "; in 3 of 3 runs taken alone it is shown to be more");
  expect_said(study, 1, "history \u2192 late attention: ");
  for (Motif& own : study.runs[1].findings.motifs) own.shown_from = std::nan("");
  expect_said(study, 1, "; in 2 of 3 runs taken alone it is shown to be more");
  expect_silent(study, 1, "in 3 of 3 runs");
  expect_silent(study_of(1), 1, "taken alone");
}

// ---- claim 3 ----

/// Gives every run of the study, and all together, the same dissociation.
void set_dissociation(Study& study, const Dissociation& row) {
  for (StudyRun& run : study.runs) run.findings.dissociation = {row};
  if (study.pooled) study.pooled->dissociation = {row};
}

Dissociation dissociated() {
  Dissociation row;
  row.free_mass.assign(num_slices, 0.25);
  row.free_mass[3] = 0.875;
  row.largest_mass = 3;
  row.largest_effect = 12;
  row.p_same = 0.01;
  row.p_largest = 0.001;
  row.idle = {7};
  return row;
}

TEST(DissociationClaim, JudgesBothHalves) {
  Study study = study_of(1);
  Dissociation row = dissociated();
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "yes");
  EXPECT_EQ(verdict(study, 2), "Dissociated in both senses");
  expect_said(study, 2, "p = 0.001 that none is stronger than the heaviest.");
  expect_said(study, 2, "(free mass 0.88, ");
  row.idle = {};
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "part");
  EXPECT_EQ(verdict(study, 2), "The heaviest slice is not the strongest; no slice is shown to be idle");
  expect_said(study, 2, "No slice has a free mass of 0.1 or more");
  row.p_largest = 0.3;
  set_dissociation(study, row);
  expect_said(study, 2, "p = 0.3 that none");
  EXPECT_EQ(tone(study, 2), "open");
  EXPECT_EQ(verdict(study, 2), "Not decided");
  row.idle = {7};
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "part");
  EXPECT_EQ(verdict(study, 2), "Some slice is shown to be idle; the heaviest slice may be the strongest");
  row.idle = {};
  row.largest_effect = 3;
  row.p_same = 0.99;
  set_dissociation(study, row);
  EXPECT_EQ(tone(study, 2), "no");
  EXPECT_EQ(verdict(study, 2), "Not dissociated: the heaviest slice is the strongest");
  expect_said(study, 2, "The heaviest slice is also the strongest: ");
  row.p_same = 0.6;
  set_dissociation(study, row);
  EXPECT_EQ(verdict(study, 2), "Not decided");
}

TEST(DissociationClaim, IsOpenWhereNothingWasTested) {
  Study study = study_of(1);
  Dissociation row = dissociated();
  row.p_same = row.p_largest = std::nan("");  // one sequence, or decided early
  row.idle = {};
  set_dissociation(study, row);
  EXPECT_EQ(verdict(study, 2), "Not decided");
  expect_said(study, 2, "Whether any slice is stronger than the heaviest was not tested.");
  set_dissociation(study, Dissociation{});
  EXPECT_EQ(verdict(study, 2), "Not measured");
  study.runs[0].findings.dissociation = {};
  EXPECT_EQ(verdict(study, 2), "Not measured");
}

TEST(DissociationClaim, SaysWhatTheRankCorrelationShows) {
  Study study = study_of(1);
  Dissociation row = dissociated();
  const char *more = "heavier slices tend to matter more", *less = "heavier slices tend to matter less",
             *open = "whether heavier slices matter more is not shown";
  for (const auto& [lower, upper, meaning] :
       {std::tuple{0.1, 0.6, more}, std::tuple{-0.6, -0.1, less}, std::tuple{-0.1, 0.6, open}}) {
    row.rank_correlation = {(lower + upper) / 2, {lower, upper}};
    set_dissociation(study, row);
    for (const char* text : {more, less, open}) {
      if (std::string(text) == meaning) {
        expect_said(study, 2, text);
      } else {
        expect_silent(study, 2, text);
      }
    }
  }
}

TEST(DissociationClaim, SpeaksOfEveryRunOnlyWhereItHoldsInEveryRun) {
  Study study = study_of(3);
  set_dissociation(study, dissociated());
  EXPECT_EQ(verdict(study, 2), "Dissociated in both senses in every run");
  expect_said(study, 2, "; in 3 of 3 runs taken alone the heaviest is shown not to be the strongest");
  expect_silent(study_of(1), 2, "every run");
  // One run does not show that its heaviest slice is not the strongest.
  study.runs[1].findings.dissociation[0].p_largest = 0.4;
  EXPECT_EQ(verdict(study, 2), "Some slice is shown to be idle in every run; the heaviest slice may be the strongest");
  expect_said(study, 2, "in 2 of 3 runs taken alone");
  // Each run has an idle slice, but none is idle in all.
  study.pooled->dissociation[0].idle = {};
  EXPECT_EQ(tone(study, 2), "open");
  EXPECT_EQ(verdict(study, 2), "The runs differ in what they show");
  expect_said(study, 2, "in every run; in 3 of 3 runs taken alone there is such a slice.");
  Dissociation together = dissociated();
  together.largest_effect = together.largest_mass;
  together.p_same = 0.99;
  together.idle = {};
  set_dissociation(study, together);
  EXPECT_EQ(verdict(study, 2), "Not dissociated: the heaviest slice is the strongest");
}

// ---- all three ----

TEST(Claims, FollowFromThePlantedNumbers) {
  const Study study = study_of(3, true);
  EXPECT_EQ(tone(study, 0), "yes");
  expect_said(study, 0, "mean over runs; from ");
  EXPECT_EQ(verdict(study, 1), "2 of 3 motifs shown above their controls");
  EXPECT_EQ(verdict(study, 2), "Dissociated in both senses in every run");
  // Of the reads that a mask can change: the read of 0.attn, which has the embedding alone, does not thin the current
  // state's mass in early attention.
  expect_said(study, 2, "Heaviest: current \u2192 early attention");
  expect_said(study, 2, "Strongest: embedding \u2192 early MLP");
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
