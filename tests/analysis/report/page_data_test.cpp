// The page's data holds the numbers of the study, of one run and of several, and stays small enough for a page.
#include "analysis/report/page/page_data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "analysis/report/page/html.h"
#include "data/base/error.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/analysis/report/report_sample.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;
using testing::sample_study;

std::vector<unsigned char> from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> out;
  unsigned word = 0, bits = 0;
  for (char c : text.substr(0, text.find('='))) {
    word = word << 6U | static_cast<unsigned>(digits.find(c));
    bits += 6;
    if (bits >= 8) out.push_back(static_cast<unsigned char>(word >> (bits -= 8)));
  }
  return out;
}

void expect_shown(const json& shown, double value) {
  ASSERT_EQ(shown.is_null(), std::isnan(value));
  if (shown.is_null()) return;
  EXPECT_NEAR(shown.get<double>(), value, 5.1e-4 * std::abs(value));
}

TEST(PageData, HoldsTheTasksOfARunWithTheStrongestSetsFirst) {
  const Study study = sample_study();
  const AnalysisRecord& record = study.runs[0].tasks.at(0);
  const json data = page_data(study), &tasks = data.at("runs").at(0).at("tasks");
  ASSERT_EQ(tasks.size(), 1U);
  const json& task = tasks.at(0);
  EXPECT_EQ(task.at("name"), "sample");
  EXPECT_EQ(task.at("direction"), "noising");
  EXPECT_EQ(task.at("prompts"), record.identity.tokens.sequences);
  ASSERT_EQ(task.at("step").size(), record.rows.size());
  for (std::size_t i = 0; i < record.rows.size(); ++i) {
    expect_shown(task.at("nll").at(i), record.rows[i].intact_nll);
    for (std::size_t m = 0; m < num_metrics; ++m)
      expect_shown(task.at(metric_names[m]).at(i), record.rows[i].intact_metrics[m]);
  }
  ASSERT_EQ(task.at("effects").size(), record.rows.back().ablations.size());
  const json& first = task.at("effects").at(0).at("sets");
  ASSERT_EQ(first.size(), 5U);
  double before = std::numeric_limits<double>::infinity();
  for (const json& set : first) {
    const double effect = std::abs(set.at("nll").at(0).get<double>());
    EXPECT_LE(effect, before);
    before = effect;
  }
  const std::vector<double> effects = record.rows.back().ablations.front().delta_nll();
  double largest = 0;
  for (double effect : effects) largest = std::isnan(effect) ? largest : std::max(largest, std::abs(effect));
  EXPECT_NEAR(std::abs(first.at(0).at("nll").at(0).get<double>()), largest, 5.1e-4 * largest);
}

TEST(PageData, HoldsTheNumbersOfARun) {
  const Study study = sample_study();
  const json data = page_data(study);
  EXPECT_EQ(data.at("title"), "run");
  EXPECT_EQ(data.at("pooled_runs"), 1);
  EXPECT_EQ(data.at("pooled_text"), "");
  EXPECT_EQ(data.at("sources"), (std::vector<std::string>{"embedding", "block_1", "block_2", "current"}));
  EXPECT_EQ(data.at("claims").size(), 3U);
  const json &run = data.at("runs").at(0), &probes = run.at("probes");
  EXPECT_EQ(probes.at("step"), (std::vector<int>{0, 10, 40}));
  EXPECT_EQ(probes.at("ablations"), (std::vector<std::string>{"mask", "freeze"}));
  const AnalysisRecord& record = study.runs[0].record;
  for (std::size_t p = 0; p < 3; ++p) {
    for (std::size_t s = 0; s < num_slices; ++s) {
      expect_shown(probes.at("mass").at(p).at(s), record.rows[p].mass[s]);
      expect_shown(probes.at("contribution").at(p).at(s), record.rows[p].contribution[s]);
      expect_shown(probes.at("norm_mass").at(p).at(s), record.rows[p].norm_mass[s]);
      for (Ablation ablation : study.runs[0].record.identity.settings.ablations) {
        const json& shown = probes.at("effects").at(to_string(ablation));
        const AblationEffects& effects = record.rows[p].effects(ablation);
        expect_shown(shown.at("delta").at(p).at(s), effects.sets[s].delta_nll.value);
        expect_shown(shown.at("excess_upper").at(p).at(s), effects.sets[s].control.excess.ci.upper);
        expect_shown(shown.at("absent").at(p).at(s), effects.sets[s].p_equivalence_adjusted);
      }
    }
  }
  const Atlas& atlas = record.rows[2].atlas;
  expect_shown(run.at("atlas").at(2).at("estimate").at(1), atlas.estimate[1].value);
  expect_shown(run.at("atlas").at(2).at("first").at(1), atlas.first_order[1].value);
  EXPECT_EQ(run.at("atlas").at(2).at("checked").size(), atlas.checked.size());
  expect_shown(run.at("atlas").at(2).at("true").at(0), atlas.checked[0].true_effect.value);
}

TEST(PageData, HoldsKeysValuesAndWaysOfRunsAndOfTheirMean) {
  const Study study = sample_study(2, false, "study", true);
  const json data = page_data(study);
  const json& probes = data.at("runs").at(1).at("probes");
  const AnalysisRecord& record = study.runs[1].record;
  for (std::size_t s = 0; s < num_slices; ++s) {
    for (Ablation ablation : record.identity.settings.ablations) {
      const json& shown = probes.at("effects").at(to_string(ablation));
      const AblationEffects& effects = record.rows[1].effects(ablation);
      expect_shown(shown.at("frozen").at(1).at(s), effects.sets[s].frozen.delta_nll.value);
      expect_shown(shown.at("share_upper").at(1).at(s), effects.sets[s].frozen.share.ci.upper);
      expect_shown(shown.at("direct_lower").at(1).at(s), effects.sets[s].direct.delta_nll.ci.lower);
      expect_shown(shown.at("repaired_all").at(1).at(0), effects.repaired_share.value);
    }
    const PartInteraction &own = study.runs[1].findings.interactions[2].front(),
                          &pooled = study.pooled->interactions[2].front();
    expect_shown(probes.at("interactions").at("mean").at("delta").at(2).at(s), own.delta_nll[s].value);
    expect_shown(probes.at("interactions").at("mean").at("p").at(2).at(s), own.p_adjusted[s]);
    expect_shown(data.at("interactions").at("mean").at("upper").at(2).at(s), pooled.delta_nll[s].ci.upper);
  }
}

TEST(PageData, HoldsEveryRunAndWhatTheySayTogether) {
  const Study study = sample_study(3, true, "study");
  const json data = page_data(study);
  EXPECT_EQ(data.at("title"), "study-1, study-2 and study-3");
  EXPECT_EQ(data.at("pooled_runs"), 3);
  EXPECT_EQ(data.at("pooled_text"), "Pooled over 3 runs.");
  ASSERT_EQ(data.at("runs").size(), 3U);
  ASSERT_EQ(data.at("baselines").size(), 1U);
  EXPECT_EQ(data.at("baselines").at(0).at("name"), "wrapped");
  EXPECT_EQ(data.at("facts").at(0), (json{"Runs", "3"}));
  ASSERT_FALSE(study.pooled->motifs.empty());
  for (std::size_t m = 0; m < study.pooled->motifs.size(); ++m) {
    expect_shown(data.at("motifs").at(m).at("effect").at("upper").at(1), study.pooled->motifs[m].effect[1].ci.upper);
    expect_shown(data.at("motifs").at(m).at("lead").at(0), study.pooled->motifs[m].lead.value);
  }
  for (std::size_t r = 0; r < 3; ++r) {
    const json& run = data.at("runs").at(r);
    EXPECT_EQ(run.at("seed"), r + 1);
    expect_shown(run.at("probes").at("content").at(2), study.runs[r].findings.content[2].mean_share);
    EXPECT_EQ(run.at("snapshots").at("step").size(), 5U);
  }
  EXPECT_EQ(data.at("dissociation").at(2).at("largest_mass"), study.pooled->dissociation[2].largest_mass);
}

TEST(PageData, SaysWhyRunsAreNotPooled) {
  Study study = sample_study(2);
  study.pooled.reset();
  study.not_pooled = "other tokens";
  EXPECT_EQ(page_data(study).at("pooled_text"), "The runs are not pooled: other tokens");
}

TEST(PageData, ReadsARunFromItsFiles) {
  const data::TempDir dir;
  testing::make_run(dir / "run", testing::sample_config());
  StudyRequest request;
  request.runs = {dir / "run"};
  const json data = page_data(load_study(request)), &run = data.at("runs").at(0);
  EXPECT_EQ(data.at("title"), "run");
  EXPECT_EQ(data.at("reads").at("name").size(), 13U);
  EXPECT_EQ(run.at("snapshots").at("step"), (std::vector<int>{0, 1, 2, 4}));
  EXPECT_EQ(run.at("train").at("tokens"), (std::vector<int>{64, 128, 192, 256}));
  EXPECT_EQ(run.at("valid").at("tokens"), (std::vector<int>{0, 64, 128, 256}));
  // Weights in 1/10000; 1.attn (read 2) of four columns sees the embedding and the current block, half each.
  const std::vector<int> weights = run.at("snapshots").at("alpha").at(3);
  EXPECT_EQ(std::vector<int>(weights.begin() + 8, weights.begin() + 12), (std::vector<int>{5000, -1, -1, 5000}));
  // Nothing was probed.
  EXPECT_TRUE(run.at("probes").is_null());
  EXPECT_TRUE(data.at("claims").empty());
  EXPECT_NE(data.at("not_probed").get<std::string>().find("routescope-analyze track"), std::string::npos);
}

TEST(PageData, KnowsTheReadsOfARunWithoutARoutingRecord) {
  Study study = sample_study();
  study.runs[0].routing = {};
  const json data = page_data(study);
  EXPECT_EQ(data.at("reads"), page_data(sample_study()).at("reads"));
  EXPECT_TRUE(data.at("runs").at(0).at("snapshots").at("step").empty());
}

TEST(PageData, SaysThatAStandardModelIsNotRouted) {
  const data::TempDir dir;
  testing::make_run(dir / "standard",
                    testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum));
  StudyRequest request;
  request.runs = {dir / "standard"};
  const json data = page_data(load_study(request));
  EXPECT_TRUE(data.at("reads").at("name").empty());
  EXPECT_TRUE(data.at("runs").at(0).at("snapshots").at("step").empty());
  EXPECT_NE(data.at("not_probed").get<std::string>().find("not routed"), std::string::npos);
  EXPECT_EQ(data.at("runs").at(0).at("train").at("step").size(), 4U);
}

TEST(PageData, PutsRunsBesideEachOtherByTheNamesOfTheirSets) {
  Study study = sample_study();
  study.runs.push_back(study.runs[0]);
  std::vector<std::string>& sets = study.runs[1].record.identity.sets;
  std::swap(sets[0], sets[1]);
  sets[2] = "3.attn";
  const json data = page_data(study);
  for (const char* field : {"delta", "control"}) {
    const auto values = [&](std::size_t run) {
      return data.at("runs").at(run).at("probes").at("effects").at("mask").at(field).at(2);
    };
    EXPECT_EQ(values(1).at(0), values(0).at(1));
    EXPECT_EQ(values(1).at(1), values(0).at(0));
    EXPECT_TRUE(values(1).at(2).is_null());
    EXPECT_EQ(values(1).at(3), values(0).at(3));
  }
}

TEST(PageData, NamesSetsThatAreNoSlices) {
  Study study = sample_study();
  study.runs[0].record.identity.sets = {"3.attn:block_2", "<all>"};
  const json data = page_data(study);
  EXPECT_EQ(data.at("sets").size(), 2U);
  EXPECT_TRUE(data.at("sets").at(0).at("family").is_null());
  EXPECT_EQ(data.at("sets").at(1).at("title"), "<all>");
  EXPECT_EQ(data.at("runs").at(0).at("probes").at("effects").at("mask").at("delta").at(0).size(), 2U);
}

TEST(PageData, KeepsTheWeightsOfEveryShownToken) {
  const Study study = sample_study();
  const RoutedText shown = testing::sample_text(*study.config, 2, 12);
  const json text = page_data(study, shown).at("text");
  const data::RoutingRecordInfo& info = study.runs[0].routing.info;
  const std::size_t reads = info.reads.size(), columns = info.sources.size();
  ASSERT_EQ(text.at("sequences"), 2);
  ASSERT_EQ(text.at("positions"), 12);
  EXPECT_EQ(text.at("tokens").at(1).at(3), " word15");
  const std::vector<unsigned char> weights = from_base64(text.at("weights"));
  ASSERT_EQ(weights.size(), 2 * reads * 12 * columns);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::size_t r = 0; r < reads; ++r) {
      for (std::size_t at = 0; at < 12 * columns; ++at) {
        const float alpha = shown.alpha[(r * 2 + s) * 12 * columns + at];
        const unsigned char byte = weights[(s * reads + r) * 12 * columns + at];
        if (std::isnan(alpha)) {
          EXPECT_EQ(byte, 255);
        } else {
          EXPECT_NEAR(byte / 254.0, alpha, 0.5 / 254 + 1e-6);
        }
      }
    }
  }
}

/// A study of large models: every ablation and an atlas at each of 40 steps, 300 snapshots, 20000 training steps.
Study large_study(model::Residual residual, std::size_t runs) {
  model::ModelConfig config = testing::micro_config(residual, model::AttnResSource::block_sum, 28);
  config.num_blocks = 8;
  testing::SampleShape shape;
  shape.sequences = 3;
  for (std::int64_t step = 0; step < 40; ++step) shape.steps.push_back(step * 50);
  shape.ablations = {Ablation::mask,     Ablation::zero,   Ablation::mean,
                     Ablation::resample, Ablation::freeze, Ablation::patch};
  std::vector<StudyRun> all{testing::sample_run("long-1", config, shape, 3, 300, 20000)};
  Study study = make_study(std::move(all));
  // Copies, which cost nothing to make, take as much room on the page as other runs.
  while (study.runs.size() < runs) study.runs.push_back(study.runs.front());
  if (runs > 1) study.pooled = study.runs.front().findings;
  return study;
}

TEST(PageData, StaysBelowFiveMegabytesForFortyStepsOf28Layers) {
  for (model::Residual residual : {model::Residual::block_attn_res, model::Residual::full_attn_res}) {
    const Study study = large_study(residual, 1);
    const json data = page_data(study, testing::sample_text(*study.config, 4, 256));
    EXPECT_LT(study_page(data).size(), 5'000'000U) << model::to_string(residual);
    const json& run = data.at("runs").at(0);
    const std::vector<std::int64_t> steps = run.at("snapshots").at("step"), losses = run.at("train").at("step");
    EXPECT_EQ(steps.front(), 0);
    EXPECT_EQ(steps.back(), 2990);
    EXPECT_GT(steps.size(), 30U);
    EXPECT_EQ(run.at("probes").at("step").size(), 40U);
    EXPECT_EQ(run.at("atlas").back().at("step"), 1950);
    EXPECT_GE(data.at("text").at("positions"), 128);
    EXPECT_EQ(run.at("train").at("rows"), 20000);
    EXPECT_LE(losses.size(), 1200U);
    EXPECT_GT(losses.size(), 400U);
    EXPECT_EQ(losses.front(), 1);
    EXPECT_EQ(losses.back(), 20000);
    // A bin's loss is the mean of its rows.
    const double last = run.at("train").at("loss").back();
    EXPECT_NEAR(last, 1.0 + 1.0 / 19900, 6e-5);
  }
}

// Free masses follow from masses as the findings make them.
TEST(PageData, FreeMassIsALineOfMass) {
  const Study study = sample_study();
  const json probes = page_data(study).at("runs").at(0).at("probes");
  for (std::size_t s = 0; s < num_slices; ++s) {
    const json shown = probes.at("dissociation").at(2).at("free_mass").at(s), line = probes.at("free").at(s);
    if (shown.is_null()) continue;
    // The findings take the mean of the sequences, which are made up apart from the mass.
    const std::vector<double>& all = study.runs[0].record.rows[2].mass_sequence;
    const std::size_t sequences = all.size() / num_slices;
    const double mass = mean(std::span(all).subspan(s * sequences, sequences));
    expect_shown(shown, line.at(0).get<double>() * mass + line.at(1).get<double>());
  }
}

TEST(PageData, AnOlderRecordHasTheWeightAlone) {
  StudyRun run = testing::sample_run("older", testing::sample_config(), {.steps = {0, 10}}, 1, 3, 40);
  for (ProbeRow& row : run.record.rows) {
    // As read_record() leaves them.
    for (auto* masses : {&row.contribution, &row.norm_mass}) masses->assign(num_slices, nan);
    for (auto* masses : {&row.contribution_mean, &row.norm_mass_mean}) masses->assign(row.alpha_mean.size(), nan);
  }
  for (data::RoutingSnapshot& snapshot : run.routing.snapshots)
    for (auto* masses : {&snapshot.contribution_mean, &snapshot.norm_mass_mean})
      masses->assign(masses->size(), std::nanf(""));
  const json page = page_data(make_study({run})).at("runs").at(0);
  EXPECT_EQ(page.at("probes").at("mass").size(), 2U);
  EXPECT_EQ(page.at("snapshots").at("alpha").size(), 3U);
  for (const char* kind : {"contribution", "norm_mass"}) {
    EXPECT_TRUE(page.at("probes").at(kind).is_null());
    EXPECT_EQ(page.at("snapshots").at(kind), (json{nullptr, nullptr, nullptr}));
  }
}

TEST(PageData, StaysBelowFiveMegabytesForManyRuns) {
  const Study study = large_study(model::Residual::full_attn_res, 12);
  const json data = page_data(study, testing::sample_text(*study.config, 4, 256));
  EXPECT_LT(study_page(data).size(), 5'000'000U);
  // Rows of probes are thinned, to the same steps in every run, and with what was found at these steps.
  const json& probes = data.at("runs").at(11).at("probes");
  const std::vector<std::int64_t> steps = probes.at("step");
  EXPECT_EQ(steps.front(), 0);
  EXPECT_EQ(steps.back(), 1950);
  EXPECT_GE(steps.size(), 5U);
  for (const char* field : {"nll", "mass", "cost", "content", "content_reads", "dissociation"})
    EXPECT_EQ(probes.at(field).size(), steps.size()) << field;
  EXPECT_EQ(data.at("dissociation").size(), steps.size());
  EXPECT_EQ(probes.at("motifs").at(0).at("effect").size(), steps.size());
}

}  // namespace
}  // namespace routescope::analysis
