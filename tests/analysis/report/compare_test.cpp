// A study says what its runs hold: the planted motif is found and dated, the idle mass named, and words follow numbers.
#include "analysis/report/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "analysis/report/page.h"
#include "analysis/report/svg.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/findings/study_case.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using testing::slice_index;
using testing::study_baseline;
using testing::study_record;
using testing::study_steps;

StudyRun run_of(std::uint64_t seed, const std::vector<std::int64_t>& steps = testing::study_steps) {
  StudyRun run;
  run.name = "study-" + std::to_string(seed);
  run.seed = static_cast<std::int64_t>(seed);
  run.trained_steps = 16;
  run.tokens_seen = 1024;
  run.valid_loss = 3.1;
  run.record = testing::study_record(seed, steps);
  return run;
}

Study three_runs(bool baseline = true) {
  return make_study({run_of(1), run_of(2), run_of(3)},
                    baseline ? std::optional(testing::study_baseline()) : std::nullopt, "made-up <numbers>");
}

std::string joined(const Claim& claim) {
  std::string out = claim.verdict + "\n";
  for (const std::string& sentence : claim.evidence) out += sentence + "\n";
  return out;
}

TEST(StudyTest, ClaimsFollowFromTheNumbers) {
  const Study study = three_runs();
  const std::vector<Claim> claims = claims_of(study);
  ASSERT_EQ(claims.size(), 3U);
  EXPECT_EQ(claims[0].verdict, "holds to rounding");
  EXPECT_NE(joined(claims[0]).find("5.0e\u221208"), std::string::npos) << joined(claims[0]);

  // Two of the three motifs were planted.
  EXPECT_EQ(claims[1].verdict, "2 of 3 found");
  const std::string motifs = joined(claims[1]);
  EXPECT_NE(motifs.find("Embedding sources through early MLPs: present"), std::string::npos) << motifs;
  EXPECT_NE(motifs.find("Older history through late attention: not shown to exceed its matched control"),
            std::string::npos)
      << motifs;

  EXPECT_EQ(claims[2].verdict, "holds in every run");
  const std::string idle = joined(claims[2]);
  // Of the reads that a mask can change: that of 0.attn, which has the embedding alone, does not thin
  // current.attn.early.
  EXPECT_NE(idle.find("current.attn.early against embedding.mlp.early"), std::string::npos) << idle;
}

TEST(StudyTest, ClaimsSayWhenTheOppositeIsTrue) {
  // The heaviest slice is given the largest effect, everything else none; and the wrapped model depends on content.
  std::vector<StudyRun> runs{run_of(1), run_of(2), run_of(3)};
  const std::size_t heavy = testing::slice_index("current.attn.early");
  std::mt19937_64 random(5);
  for (StudyRun& run : runs) {
    for (ProbeRow& row : run.record.rows) {
      AblationEffects& mask = row.ablations.front();
      for (std::size_t s = 0; s < num_slices; ++s) {
        std::vector<double> effect, control;
        testing::add_sequences(effect, s == heavy ? 0.5 : 0.05, 24, random);
        testing::add_sequences(control, s == heavy ? 0.05 : 0.1, 24, random);
        mask.sets[s].delta_nll_sequence = effect;
        mask.sets[s].control.delta_nll_sequence = control;
      }
      testing::describe_effects(mask);
    }
  }
  AnalysisRecord baseline = testing::study_baseline();
  baseline.rows[0].alpha_variance[5] = 1e-3;
  const std::vector<Claim> claims = claims_of(make_study(std::move(runs), baseline, ""));
  EXPECT_EQ(claims[0].verdict, "does not hold for this baseline");
  EXPECT_EQ(claims[1].verdict, "1 of 3 found");
  EXPECT_NE(joined(claims[1]).find("Embedding sources through early MLPs: less than its matched control"),
            std::string::npos)
      << joined(claims[1]);
  EXPECT_EQ(claims[2].verdict, "not shown");
}

TEST(StudyTest, TakesTheStepsThatAllRunsHave) {
  const Study study = make_study({run_of(1), run_of(2, {0, 2, 4, 16, 32})}, std::nullopt, "");
  EXPECT_EQ(study.steps, (std::vector<std::int64_t>{0, 2, 4, 16}));
  for (const StudyRun& run : study.runs) {
    ASSERT_EQ(run.record.rows.size(), 4U);
    EXPECT_EQ(run.findings.step, study.steps);
  }
  EXPECT_EQ(study.pooled.step, study.steps);
}

TEST(StudyTest, RefusesWhatIsNoStudy) {
  EXPECT_NE(data::error_of([] { make_study({}, std::nullopt, ""); }).find("--run"), std::string::npos);
  EXPECT_NE(data::error_of([] {
              make_study({run_of(1), run_of(1)}, std::nullopt, "");
            }).find("two runs named 'study-1'"),
            std::string::npos);
  EXPECT_NE(data::error_of([] {
              make_study({run_of(1, {0, 1}), run_of(2, {2, 4})}, std::nullopt, "");
            }).find("no step"),
            std::string::npos);
  EXPECT_NE(data::error_of([] {
              AnalysisRecord other = testing::study_baseline();
              other.identity.tokens.ids[3] ^= 1;
              make_study({run_of(1)}, other, "");
            }).find("other tokens"),
            std::string::npos);
  EXPECT_NE(data::error_of([] {
              StudyRun run = run_of(1);
              std::swap(run.record.identity.sets[2], run.record.identity.sets[5]);
              make_study({run}, std::nullopt, "");
            }).find("index 2 named embedding.mlp.late, expected the 18 slices"),
            std::string::npos);
}

TEST(StudyTest, FileHoldsRunsFindingsAndBaseline) {
  const data::TempDir dir;
  const Study study = three_runs();
  write_study(study, dir / "study.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "study.h5");
  EXPECT_EQ(file.text("filetype"), "routescope study");
  EXPECT_EQ(file.read_text("run"), (std::vector<std::string>{"study-1", "study-2", "study-3"}));
  data::hdf5::Shape shape;
  const std::vector<double> effect = file.read<double>("mask/delta_nll", &shape);
  EXPECT_EQ(shape, (data::hdf5::Shape{3, 6, num_slices}));
  for (std::size_t r = 0; r < 3; ++r) {
    for (std::size_t i = 0; i < 6; ++i) {
      for (std::size_t s = 0; s < num_slices; ++s) {
        // Stored in single precision.
        const double was = study.runs[r].record.rows[i].effects(Ablation::mask).sets[s].delta_nll.value;
        EXPECT_NEAR(effect[(r * 6 + i) * num_slices + s], was, 6e-8 * std::abs(was));
      }
    }
  }
  EXPECT_FALSE(file.exists("mask/delta_nll_sequence"));
  EXPECT_FALSE(file.exists("probe_tokens"));
  EXPECT_EQ(file.group("mask").integer("n"), 24);
  EXPECT_EQ(file.dataset("pooled/motif/embedding_early_mlp/effect").shape(), (data::hdf5::Shape{6}));
  EXPECT_EQ(file.dataset("runs/study-2/motif/embedding_early_mlp/effect_ci").shape(), (data::hdf5::Shape{6, 2}));
  EXPECT_NE(file.group("pooled/motif/current_early").text("interval").find("3 runs"), std::string::npos);
  EXPECT_EQ(file.dataset("baseline/mask/delta_nll").shape(), (data::hdf5::Shape{1, num_slices}));
  // The wrapped model has another axis of sources and reads.
  EXPECT_EQ(file.dataset("baseline/alpha_mean").shape()[1], 12);
  EXPECT_EQ(file.dataset("alpha_mean").shape()[2], 13);
  EXPECT_EQ(file.dataset("atlas/true_effect").shape()[0], 3);
  EXPECT_LT(std::filesystem::file_size(dir / "study.h5"), 600'000U);
}

TEST(StudyTest, PageIsWholeAndHasNothingFromElsewhere) {
  const std::string page = study_page(three_runs());
  for (const char* id : {"claims", "emergence", "plane", "slices", "content", "atlas", "runs", "cost", "method"})
    EXPECT_NE(page.find("<section id=\"" + std::string(id) + "\">"), std::string::npos) << id;
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_FALSE(std::regex_search(page, std::regex("(src|href)=|url\\(|@import")));
  EXPECT_NE(page.find("made-up &lt;numbers&gt;"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("inf,"), std::string::npos);
  EXPECT_LT(page.size(), 400'000U);

  // Every element that is opened is closed.
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)([^>]*?)(/?)>");
  for (std::sregex_iterator at(page.begin(), page.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2];
    if ((*at)[4] == "/" || name == "meta") continue;
    if ((*at)[1] != "/") {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << name;
      EXPECT_EQ(open.back(), name) << "at " << at->position();
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(StudyTest, PageOfOneRunWithoutControlsOrBaselineSaysSo) {
  StudyRun run = run_of(1);
  run.record.identity.settings.controls = 0;
  for (ProbeRow& row : run.record.rows) {
    row.atlas = {};
    for (AblationEffects& effects : row.ablations) {
      for (SetEffect& set : effects.sets) set.control = {};
    }
  }
  const std::string page = study_page(make_study({run}, std::nullopt, ""));
  EXPECT_NE(page.find("No wrapped baseline was given"), std::string::npos);
  EXPECT_NE(page.find("not decided: no controls were measured"), std::string::npos);
  for (const char* text : {"No other slice", "mean over 0", "from 1 runs", "of 3 found"})
    EXPECT_EQ(page.find(text), std::string::npos) << text;
  EXPECT_EQ(page.find("id=\"atlas\""), std::string::npos);
}

TEST(StudyTest, LoadsRunDirectories) {
  const data::TempDir dir;
  std::vector<std::string> runs;
  for (std::uint64_t seed : {1, 2}) {
    const auto run = dir / ("study-" + std::to_string(seed));
    testing::make_run(run, testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
    testing::study_record(seed).save(run / "analysis.h5");
    runs.push_back(run.string());
  }
  testing::study_baseline().save(dir / "wrapped.h5");
  const Study study = load_study(runs, dir / "wrapped.h5", "text");
  ASSERT_EQ(study.runs.size(), 2U);
  EXPECT_EQ(study.runs[1].name, "study-2");
  EXPECT_EQ(study.runs[1].seed, 1);  // make_run()'s
  EXPECT_EQ(study.runs[1].tokens_seen, 256);
  EXPECT_DOUBLE_EQ(study.runs[1].valid_loss, 3.6 - 0.1 * 4);
  EXPECT_EQ(study.steps, testing::study_steps);
  EXPECT_NE(data::error_of([&] { load_study({runs}, dir / "absent.h5", ""); }).find("absent.h5"), std::string::npos);
  std::filesystem::remove(dir / "study-2" / "analysis.h5");
  EXPECT_NE(data::error_of([&] { load_study({runs}, {}, ""); }).find("analysis.h5: no such file"), std::string::npos);
}

TEST(SvgTest, TicksAreRoundAndWithin) {
  for (const auto& [low, high] : {std::pair{0.0, 0.7}, {-0.03, 0.2}, {0.0, 1234.0}, {-5e-5, 1e-5}}) {
    const std::vector<Tick> ticks = round_ticks(low, high);
    EXPECT_GE(ticks.size(), 3U);
    EXPECT_LE(ticks.size(), 7U);
    for (const Tick& tick : ticks) {
      EXPECT_GE(tick.value, low - 1e-12);
      EXPECT_LE(tick.value, high * (1 + 1e-9));
      std::string label = std::regex_replace(tick.label, std::regex("\u2212"), "-");
      EXPECT_NEAR(std::stod(label), tick.value, 1e-9 * std::max(std::abs(low), std::abs(high)));
    }
  }
  EXPECT_EQ(step_ticks(1200).back().label, "1000");
  EXPECT_EQ(step_ticks(5000).back().label, "5000");
}

TEST(SvgTest, NanInterruptsAndTextIsEscaped) {
  Svg svg(100, 50, "a \"b\"");
  const double nan = std::nan("");
  const std::vector<double> x{0, 1, 2, 3}, y{5, nan, 7, 8};
  svg.polyline(x, y, {});
  svg.band(x, y, y, "#fff", 0.5);
  svg.mark(nan, 1, Mark::circle, 3, "#000", true);
  svg.text(1, 1, "<b>");
  const std::string text = svg.str();
  EXPECT_NE(text.find("M0.0 5.0M2.0 7.0L3.0 8.0"), std::string::npos) << text;
  EXPECT_NE(text.find("points=\"2.0,7.0 3.0,8.0 3.0,8.0 2.0,7.0\""), std::string::npos) << text;
  EXPECT_EQ(text.find("circle"), std::string::npos);
  EXPECT_NE(text.find("&lt;b&gt;"), std::string::npos);
  EXPECT_NE(text.find("aria-label=\"a &quot;b&quot;\""), std::string::npos);
}

TEST(PageTest, NumbersReadAsPeopleWriteThem) {
  EXPECT_EQ(number_text("{:+.2f}", -0.5), "\u22120.50");
  EXPECT_EQ(number_text("{:.2f}", std::nan("")), "\u2013");
  EXPECT_EQ(number_text("{:.2f}", INFINITY), "\u221e");
  EXPECT_EQ(number_text("{:+.2f}", -0.001), "+0.00");
  EXPECT_EQ(percent_text(0.1234), "12.3\u00a0%");
  EXPECT_EQ(estimate_text({0.5, {0.25, 0.75}}, "{:.2f}"), "0.50 [0.25, 0.75]");
  const std::vector<std::int64_t> steps{32, 64, 1'234'567};
  EXPECT_EQ(onset_text({64, {32, INFINITY}}, steps), "64 [32, never]");
  EXPECT_EQ(onset_text({.value = 1'234'567}, steps), "1234567");
  EXPECT_EQ(onset_text({32, {32, 64}}, steps), "at or before 32 [32, 64]");
  EXPECT_EQ(onset_text({}, steps), "not shown");
  EXPECT_EQ(onset_text({32, {32, 32}}, std::span(steps).first(1)), "\u2013");
  EXPECT_EQ(thousands_text(-1234567), "-1\u202f234\u202f567");
  EXPECT_EQ(list_text({"a", "b", "c"}), "a, b and c");
}

}  // namespace
}  // namespace routescope::analysis
