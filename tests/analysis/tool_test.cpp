// routescope-analyze from the outside: what a person types, what comes back, and that bad input leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <sstream>

#include "data/hdf5/file.h"
#include "data/tokens/shard_writer.h"
#include "tests/analysis/analyze_tool.h"

namespace routescope::analysis {
namespace {

using testing::make_run;
using testing::micro_config;
using testing::micro_model;
using testing::micro_tokens;

TEST_F(AnalyzeTool, ProbesARunStepByStepOrAllAtOnce) {
  make();
  expect_done("probe --run run", "step 4: intact nll");
  EXPECT_EQ(rows("run/analysis.h5"), 2U);  // and step 0, against which it is measured
  expect_done("probe --run run --step 1", "embedding.mlp.early");
  EXPECT_EQ(rows("run/analysis.h5"), 3U);
  expect_done("probe --run run --step all", "run/analysis.h5: step 1 is there already");
  EXPECT_EQ(rows("run/analysis.h5"), 4U);
  expect_done("probe --run run --step all --seed 2 --sequences 4 --out other.h5", "other.h5: 4 rows");
  EXPECT_EQ(load_record(dir / "other.h5").identity.tokens.sequences, 4);
}

TEST_F(AnalyzeTool, MeasuresAgainstStepZeroAlsoWhereItsCheckpointIsGone) {
  make();
  std::filesystem::rename(dir / "run/checkpoints/step-00000000", dir / "run/initial");
  std::filesystem::remove(dir / "run/initial/MANIFEST.json");
  expect_done("probe --run run", "step        0  nll");
  const AnalysisRecord record = load_record(dir / "run/analysis.h5");
  ASSERT_EQ(record.rows.size(), 2U);
  EXPECT_EQ(record.rows[0].margin, 0);
  for (const ProbeRow& row : record.rows) EXPECT_EQ(row.reference_nll, record.rows[0].intact_nll);
  // Without either there is no null, and what was learned counts from a uniform guess.
  std::filesystem::remove_all(dir / "run/initial");
  expect_done("probe --run run --out alone.h5", "step 4: intact nll");
  EXPECT_DOUBLE_EQ(load_record(dir / "alone.h5").rows[0].reference_nll, std::log(37));
}

TEST_F(AnalyzeTool, ProbesAtATimeAreAllKept) {
  make();
  std::string others;
  for (const char* step : {"0", "1", "2", "4", "1"})
    others += fmt::format("{}/routescope-analyze probe --run run --step {} 2>&1 & ", testing::bin_dir(), step);
  const ToolResult result = run("track --run run --follow ; wait", " ; export OMP_NUM_THREADS ; " + others);
  EXPECT_EQ(result.output.find("error"), std::string::npos) << result.output;
  EXPECT_EQ(rows("run/analysis.h5"), 4U) << result.output;
  expect_done("probe --run run --step 4", "4 rows");
  for (const auto& entry : std::filesystem::directory_iterator(dir / "run"))
    EXPECT_EQ(entry.path().filename().string().find(".part"), std::string::npos) << entry.path();
  // A number that could not be read again is not written.
  expect_refused("track --run run --out new.h5 --margin nan", 2, "--margin");
  expect_refused("track --run run --out new.h5 --margin inf", 2, "--margin");
}

TEST_F(AnalyzeTool, MeasuresWhatItIsAskedFor) {
  make("run", {0, 4});
  data::write_text_atomically(dir / "classes.json",
                              R"({"low": [0, 1, 2, 3, 4, 5, 6, 7, 8], "high": [30, 31, 32, 33]})");
  {
    const ProbeTokens tokens = testing::micro_tokens(6, 10, 77);
    data::hdf5::File file = data::hdf5::File::create(dir / "aligned.h5");
    file.write("tokens", tokens.ids, {6, 10});
  }
  const ToolResult result =
      run("probe --run run --ablation patch,all --sets '3.attn:block_1; 2.attn-4.mlp:current' --set "
          "embedding.mlp.early --controls 2 --margin 0.5 --by position,repeat --classes classes.json --patch-from "
          "aligned.h5 "
          "--atlas --atlas-checks 5");
  ASSERT_EQ(result.status, 0) << result.output;
  for (const char* part :
       {"2.attn-4.mlp:current", "resample", " routes masked, 5 drawn at random: rank correlation ", "cost: "})
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
  std::istringstream lines(result.output);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120U) << line;

  const AnalysisRecord record = load_record(dir / "run/analysis.h5");
  const ProbeSettings& settings = record.identity.settings;
  EXPECT_EQ(settings.ablations, whole_ablations());
  EXPECT_EQ(record.identity.sets,
            (std::vector<std::string>{"3.attn:block_1", "2.attn-4.mlp:current", "embedding.mlp.early"}));
  EXPECT_EQ(settings.controls, 2);
  EXPECT_EQ(settings.margin, 0.5);
  ASSERT_EQ(record.identity.classes.size(), 3U);
  EXPECT_EQ(record.identity.classes[2].labels.size(), 2U);
  EXPECT_EQ(record.identity.patch.origin, "aligned.h5");
  const ProbeRow& row = record.rows.at(0);
  for (const AblationEffects& effects : row.ablations) {
    ASSERT_EQ(effects.sets.size(), 3U) << to_string(effects.ablation);
    for (const SetEffect& set : effects.sets) {
      for (double value : {set.delta_nll.value, set.delta_nll.ci.upper, set.p_adjusted, set.kl,
                           set.control.excess.value, set.control.excess_p_adjusted, set.p_equivalence_adjusted})
        EXPECT_FALSE(std::isnan(value)) << to_string(effects.ablation);
      ASSERT_EQ(set.delta_nll_class.size(), 3U);
      EXPECT_EQ(set.delta_nll_class[1].size(), 2U);
    }
  }
  EXPECT_EQ(row.atlas.random_checks(), 5U);
  EXPECT_GT(row.atlas.checked.size(), 5U);
  EXPECT_GT(row.cost.computed, row.cost.plain);
  EXPECT_GT(row.cost.unshared, row.cost.computed);
  EXPECT_EQ(row.alpha_variance.size(), row.alpha_mean.size());

  expect_refused("probe --run run", 1, "run/analysis.h5: attribute settings: ablations: found [\"mask\",\"zero\"");
  expect_refused("probe --run run --until-decided --controls 0 --out decided.h5", 2,
                 "--until-decided: found 6 sequences, expected at least 16");
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "more.h5");
    file.write("tokens", testing::micro_tokens(24, 8).ids, {24, 8});
  }
  expect_done("probe --run run --tokens more.h5 --until-decided --margin 5 --controls 0 --out decided.h5",
              "without stopping early");
}

TEST_F(AnalyzeTool, TrackFollowsReportAndInspect) {
  make("run", {0, 1});
  expect_done("track --run run", "run/analysis.h5: 2 rows");
  EXPECT_EQ(run("track --run run").output.find(" s\n"), std::string::npos) << "probed again what was there";
  // The run goes on; following it ends with the last planned step (4).
  std::filesystem::remove_all(dir / "run/routing.h5");
  make("run", {0, 1, 2, 4});
  expect_done("track --run run --follow", "run/analysis.h5: 4 rows");
  expect_done("report --run run", "run/report.html");
  EXPECT_TRUE(std::filesystem::exists(dir / "run/report.html"));
  expect_done("report --run run --out page.html", "page.html");
  expect_done("inspect --run run", "probes       4 of 4 checkpoints");
  expect_done("inspect --run run", "mean entropy of 13 reads");
}

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 600 && !condition(); ++i) ::usleep(100'000);
  return condition();
}

/// The tool in the background.
class Follower {
 public:
  Follower(std::filesystem::path dir, const std::string& arguments) : dir_(std::move(dir)) {
    const std::string command = "cd " + dir_.string() + " && OMP_NUM_THREADS=1 " + testing::bin_dir() +
                                "/routescope-analyze " + arguments + " > log 2>&1; echo $? > status";
    EXPECT_EQ(std::system(("(" + command + ") &").c_str()), 0);
  }
  std::string log() const { return std::filesystem::exists(dir_ / "log") ? data::read_text(dir_ / "log") : ""; }
  std::string status() const {
    return std::filesystem::exists(dir_ / "status") ? data::read_text(dir_ / "status") : "";
  }
  bool ended() const { return !status().empty(); }
  std::size_t rows() const {
    const auto file = dir_ / "run/analysis.h5";
    return std::filesystem::exists(file) ? load_record(file).rows.size() : 0;
  }
  std::string sha256(std::int64_t step) const {
    const AnalysisRecord record = load_record(dir_ / "run/analysis.h5");
    return record.find(step) ? record.find(step)->model_sha256 : "";
  }

 private:
  std::filesystem::path dir_;
};

TEST_F(AnalyzeTool, FollowWaitsForTheLastStep) {
  make("run", {0, 1});
  const Follower follower(dir.path(), "track --run run --follow");
  ASSERT_TRUE(wait_for([&] { return follower.rows() == 2; })) << follower.log();
  EXPECT_FALSE(follower.ended());
  model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  testing::save_checkpoint(dir / "run", 4, model);
  ASSERT_TRUE(wait_for([&] { return follower.ended(); })) << follower.log();
  EXPECT_EQ(follower.status(), "0\n") << follower.log();
  EXPECT_EQ(follower.rows(), 3U);
}

TEST_F(AnalyzeTool, FollowSurvivesWhatARunDoesToItsCheckpoints) {
  make("run", {0, 1, 2});
  const Follower follower(dir.path(), "track --run run --follow --controls 0");
  const auto said = [&](const std::string& part) {
    return wait_for([&] { return follower.log().find(part) != std::string::npos; });
  };
  ASSERT_TRUE(wait_for([&] { return follower.rows() == 3; })) << follower.log();
  // The run is rolled back to step 1 and trained again to other weights; what it keeps no longer goes.
  model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  std::filesystem::remove_all(data::checkpoint_dir(dir / "run", 2));
  std::filesystem::remove_all(data::checkpoint_dir(dir / "run", 0));
  ASSERT_TRUE(said("rolled back to step 1: rows up to step 2")) << follower.log();
  testing::save_checkpoint(dir / "run", 2, model);
  ASSERT_TRUE(said("other weights than were probed")) << follower.log();
  ASSERT_TRUE(wait_for([&] { return follower.sha256(2) == model_sha256(data::checkpoint_dir(dir / "run", 2)); }));
  EXPECT_FALSE(follower.ended());
  testing::save_checkpoint(dir / "run", 4, model);
  ASSERT_TRUE(wait_for([&] { return follower.ended(); })) << follower.log();
  EXPECT_EQ(follower.status(), "0\n") << follower.log();
  EXPECT_EQ(follower.rows(), 4U);
}

#ifdef ROUTESCOPE_MPIEXEC
// 6 sequences on 4 ranks: one or two each, where a process alone takes them in one batch, whose products round
// otherwise in their last bits (probe_test.cpp holds ranks to the same bits).
TEST_F(AnalyzeTool, RanksShareTheSequences) {
  make();
  constexpr double tolerance = 1e-5;
  expect_done("probe --run run --step all --out alone.h5", "alone.h5: 4 rows");
  const std::string ranks = " OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " ROUTESCOPE_MPIEXEC
                            " --oversubscribe --bind-to none -n 4 ";
  const ToolResult result = run("probe --run run --step all --out ranks.h5", ranks);
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("ranks.h5: 4 rows"), std::string::npos) << result.output;
  EXPECT_EQ(result.output.find("ranks.h5: 4 rows"), result.output.rfind("ranks.h5: 4 rows")) << "said once";
  const AnalysisRecord alone = load_record(dir / "alone.h5"), shared = load_record(dir / "ranks.h5");
  ASSERT_EQ(shared.rows.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const ProbeRow &found = shared.rows[i], &expected = alone.rows[i];
    EXPECT_EQ(found.step, expected.step);
    EXPECT_EQ(found.model_sha256, expected.model_sha256);
    EXPECT_NEAR(found.intact_nll, expected.intact_nll, tolerance);
    const std::vector<SetEffect>&found_sets = found.effects(Ablation::mask).sets,
          &expected_sets = expected.effects(Ablation::mask).sets;
    ASSERT_EQ(found_sets.size(), expected_sets.size());
    for (std::size_t s = 0; s < found_sets.size(); ++s) {
      ASSERT_EQ(found_sets[s].delta_nll_sequence.size(), expected_sets[s].delta_nll_sequence.size());
      for (std::size_t j = 0; j < found_sets[s].delta_nll_sequence.size(); ++j) {
        const double x = found_sets[s].delta_nll_sequence[j], y = expected_sets[s].delta_nll_sequence[j];
        EXPECT_TRUE((std::isnan(x) && std::isnan(y)) || std::abs(x - y) <= tolerance) << x << " " << y;
      }
    }
    for (std::size_t s = 0; s < found.mass.size(); ++s) EXPECT_NEAR(found.mass[s], expected.mass[s], tolerance);
  }
  // One that only some ranks could meet ends them all, with one line of the tool's own.
  const ToolResult refused = run("probe --run run --step 7", ranks);
  EXPECT_EQ(refused.status, 1) << refused.output;
  std::size_t said = 0;
  for (std::size_t at = 0; (at = refused.output.find("error: ", at)) != std::string::npos; ++at) ++said;
  EXPECT_EQ(said, 1U) << refused.output;
  EXPECT_NE(refused.output.find("found no step 7, expected one of 0 1 2 4"), std::string::npos) << refused.output;
}
#endif

TEST_F(AnalyzeTool, ProbesABareModelOnGivenTokens) {
  std::filesystem::create_directories(dir / "model");
  testing::micro_model(testing::micro_config(model::Residual::full_attn_res, model::AttnResSource::cumulative))
      .save(dir / "model");
  const ProbeTokens tokens = testing::micro_tokens(3, 8);
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "tokens.h5");
    file.write("tokens", tokens.ids, {3, 8});
  }
  data::ShardWriter shard(dir / "tokens.bin", 37);
  shard.append(tokens.ids);
  shard.finish();
  expect_done("probe --model model --tokens tokens.h5", "3 sequences of 8 tokens (tokens.h5)");
  EXPECT_FALSE(std::filesystem::exists(dir / "model/analysis.h5"));
  expect_done("probe --model model --tokens tokens.h5 --out a.h5", "a.h5: 1 rows");
  expect_done("probe --model model --tokens tokens.bin --sequence-length 6 --out b.h5",
              "4 sequences of 6 tokens (tokens.bin)");
  EXPECT_EQ(load_record(dir / "a.h5").rows[0].step, 0);
  expect_refused("probe --model model --tokens tokens.h5 --sequences 4", 1,
                 "found 3 sequences of 8 tokens, expected 4");
  expect_refused("probe --model model --tokens tokens.bin --sequence-length 6 --sequences 5", 1, "expected 5");
}

TEST_F(AnalyzeTool, WarnsOnceWhereDocumentsAreFewOrNotKnown) {
  make("run", {0, 1});
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "many.h5");
    file.write("tokens", testing::micro_tokens(16, 4).ids, {16, 4});
    file.write("documents", std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {16});
  }
  const auto warnings = [&](const std::string& arguments) {
    const ToolResult result = run(arguments + " --controls 0");
    EXPECT_EQ(result.status, 0) << result.output;
    std::istringstream lines(result.output);
    std::string out;
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("warning: ")) out += line + "\n";
    return out;
  };
  const std::string unknown =
      "warning: the documents of 6 sequences are not known: taken as independent; if not, intervals are too narrow\n";
  EXPECT_EQ(warnings("probe --run run --step all"), unknown);
  EXPECT_EQ(warnings("track --run run"), unknown);
  EXPECT_EQ(
      warnings("track --run run --tokens many.h5 --sequences 15 --out a.h5"),
      "warning: 15 sequences of 15 documents, expected 16 documents or more: intervals and tests count documents\n");
  EXPECT_EQ(warnings("probe --run run --tokens many.h5 --out b.h5"), "");
  EXPECT_EQ(load_record(dir / "b.h5").identity.tokens.documents.back(), 15);
}

TEST_F(AnalyzeTool, WrongUseEndsWithOneLineAndStatusTwo) {
  make("run", {0});
  expect_refused("", 2, "subcommand");
  expect_refused("probe", 2, "expected either --run or --model");
  expect_refused("probe --run run --model run", 2, "expected either --run or --model");
  expect_refused("probe --model run", 2, "--model needs --tokens");
  expect_refused("probe --run run --ablation mask,null", 2, "--ablation: ");
  expect_refused("probe --run run --ablation patch", 2, "--ablation patch needs --patch-from");
  expect_refused("probe --run run --patch-from a.h5", 2, "--patch-from needs --ablation patch");
  expect_refused("probe --run run --sets '3.attn:block_9'", 2, "block_9");
  expect_refused("probe --run run --sets ' ; all'", 2, "--sets: found an empty name, expected READS[:SOURCES]");
  expect_refused("probe --run run --controls -1", 2, "--controls");
  expect_refused("probe --run run --margin 0", 2, "--margin");
  expect_refused("probe --run run --by colour", 2, "--by");
  expect_refused("probe --run run --look-every 0", 2, "--look-every");
  expect_refused("probe --run run --step soon", 2, "--step: found 'soon', expected a number, latest or all");
  expect_refused("probe --run run --sequences 0", 2, "--sequences");
  expect_refused("probe --run run --device tpu", 2, "--device");
  expect_refused("track --run run --steps 3", 2, "--steps");
}

TEST_F(AnalyzeTool, BadInputEndsWithOneLineAndLeavesNothing) {
  make("run", {0, 1});
  testing::make_run(dir / "standard", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {0});
  expect_refused("probe --run nowhere", 1, "nowhere: no such directory, expected a run");
  expect_refused("probe --run run --step 7", 1, "run/checkpoints: found no step 7, expected one of 0 1");
  expect_refused("probe --run standard", 1, "'standard': it has no reads to probe");
  expect_refused("probe --run run --tokens nothing.h5", 1, "nothing.h5");
  expect_refused("probe --run run --out no/such/dir/a.h5", 1, "no/such/dir/a.h5");
  if (!kernels::cuda_available())
    expect_refused("probe --run run --device cuda", 1, "--device: found cuda, expected cpu: ");
  expect_refused("report --run nowhere", 1, "nowhere: no such directory, expected a run");
  expect_refused("inspect --run run/checkpoints", 1, "routing.h5: no such file, expected a run directory");
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "beyond.h5");
    file.write("tokens", std::vector<std::int32_t>{1, 2, 37, 4}, {1, 4});
  }
  expect_refused("probe --run run --tokens beyond.h5", 1, "found id 37, expected 0 to 36");
  ASSERT_EQ(run("probe --run run --step 0").status, 0);
  expect_refused("probe --run run --seed 2", 1, "analysis.h5: attribute settings: seed: found 1, expected 2");
  expect_refused("track --run run --sequences 3", 1, "/probe_tokens: found 6 sequences of 10 tokens, expected 3 of 10");
  expect_refused("probe --run run --classes nothing.json --out c.h5", 1, "nothing.json");
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "few.h5");
    file.write("tokens", std::vector<std::int32_t>(12, 1), {6, 2});
  }
  expect_refused("probe --run run --ablation patch --patch-from few.h5 --out c.h5", 1,
                 "few.h5: found 6 sequences of 2 tokens, expected 6 of 10, aligned with routing.h5 /probe_tokens");
  std::ofstream(dir / "run/analysis.h5", std::ios::trunc) << "torn";
  expect_refused("track --run run", 1, "run/analysis.h5");
}

}  // namespace
}  // namespace routescope::analysis
