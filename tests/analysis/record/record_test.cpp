// analysis.h5 is read back bit by bit, lacks what was not measured, and refuses rows of another measurement.
#include "analysis/record/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "analysis/commands/tables.h"
#include "analysis/findings/findings.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using data::error_of;

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(AnalysisRecordTest, RoundTripKeepsEveryBitOfEveryField) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.rows[0].mass[3] = -std::numeric_limits<double>::infinity();
  save_record(record, dir / "analysis.h5");
  const AnalysisRecord back = load_record(dir / "analysis.h5");
  ASSERT_EQ(back.rows.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(testing::text_of(record.rows[i]), testing::text_of(back.rows[i])) << i;
  EXPECT_EQ(back.rows[0].step, 0);
  EXPECT_EQ(back.rows[2].step, 4);
  EXPECT_TRUE(back.rows[0].atlas.empty());
  EXPECT_EQ(back.rows[1].atlas.checked.size(), 3U);
  const ProbeIdentity &was = record.identity, &is = back.identity;
  EXPECT_EQ(is.tokens.ids, was.tokens.ids);
  EXPECT_EQ(is.tokens.origin, was.tokens.origin);
  EXPECT_EQ(is.patch.ids, was.patch.ids);
  EXPECT_EQ(is.patch.origin, was.patch.origin);
  EXPECT_EQ(is.settings, was.settings);
  EXPECT_EQ(is.sets, was.sets);
  EXPECT_EQ(is.model_config, was.model_config);
  EXPECT_EQ(is.preregistration_sha256, was.preregistration_sha256);
  ASSERT_EQ(is.classes.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(is.classes[i].name, was.classes[i].name);
    EXPECT_EQ(is.classes[i].labels, was.classes[i].labels);
    EXPECT_EQ(is.classes[i].of_token, was.classes[i].of_token);
  }
  EXPECT_EQ(back.created, record.created);
}

TEST(AnalysisRecordTest, WhatWasNotMeasuredIsNaN) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.rows[1].norm_mass_sequence.clear();
  record.rows[1].ablations[2] = {};
  record.rows[1].ablations[2].ablation = Ablation::mean;
  // What the findings are made of stays: they ask for it.
  save_record(record, dir / "analysis.h5");
  const AnalysisRecord back = load_record(dir / "analysis.h5");
  const auto all_nan = [](const std::vector<double>& values, std::size_t size) {
    return values.size() == size && std::all_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
  };
  EXPECT_TRUE(all_nan(back.rows[1].norm_mass_sequence, 18 * 4));
  EXPECT_TRUE(all_nan(back.rows[1].effects(Ablation::mean).delta_nll(), 18));
  EXPECT_TRUE(all_nan(back.rows[1].effects(Ablation::mean).sets[17].control.delta_nll_sequence, 4));
  EXPECT_EQ(back.rows[0].effects(Ablation::mean).sets[3].kl, record.rows[0].effects(Ablation::mean).sets[3].kl);

  record.rows[1].ablations[1].sets.pop_back();
  try {
    save_record(record, dir / "analysis.h5");
    ADD_FAILURE() << "a row with a missing set was written";
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(), "zero/delta_nll of step 1: found 17 values, expected 18");
  }
}

TEST(AnalysisRecordTest, ReadsAnOlderFileAndAddsNothingToIt) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{2, 1});
  }
  const AnalysisRecord old = load_record(dir / "analysis.h5");
  EXPECT_EQ(old.identity.version, 2);
  EXPECT_EQ(old.rows[0].margin, old.identity.settings.margin);  // which was in nats a token
  EXPECT_TRUE(holds(error_of([&] { open_record(dir / "analysis.h5", record.identity); }),
                    "attribute version: found major version 2, expected 3: its rows were measured otherwise: name "
                    "another file with --out"));
}

TEST(AnalysisRecordTest, RefusesOtherFilesAndNewerVersions) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{3, 9});
  }
  EXPECT_NE(error_of([&] {
              load_record(dir / "analysis.h5");
            }).find("attribute version: found [3, 9], expected [2, 0] to [3, 1]"),
            std::string::npos);
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{1, 0});
  }
  EXPECT_TRUE(holds(error_of([&] { load_record(dir / "analysis.h5"); }),
                    "found [1, 0], expected [2, 0] to [3, 1]: an older version measured less: remove the file"));
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "other.h5");
    file.set("filetype", "something else");
  }
  EXPECT_NE(
      error_of([&] { load_record(dir / "other.h5"); }).find("found 'something else', expected 'routescope analysis'"),
      std::string::npos);
  std::ofstream(dir / "text.h5") << "not HDF5";
  EXPECT_NE(error_of([&] { load_record(dir / "text.h5"); }).find("text.h5"), std::string::npos);
  // One column too few.
  save_record(record, dir / "short.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "short.h5");
    file.remove("mass");
    file.write("mass", std::vector<double>(3 * 17, 0.5), {3, 17});
  }
  EXPECT_NE(
      error_of([&] { load_record(dir / "short.h5"); }).find("/mass: found float64 [3, 17], expected float64 [3, 18]"),
      std::string::npos);
  save_record(record, dir / "settings.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "settings.h5");
    file.set("settings", R"({"seed": 1})");
  }
  EXPECT_TRUE(holds(error_of([&] { load_record(dir / "settings.h5"); }),
                    "settings.h5: attribute settings: key ablations: found nothing"));
}

// A dataset that was added later: of the root, of a group, of the atlas, and a whole group.
TEST(AnalysisRecordTest, WhatAnOlderFileLacksIsNotMeasured) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  save_record(record, file);
  {
    data::hdf5::File older = data::hdf5::File::open_writable(file);
    for (const char* path : {"alpha_variance", "mask/kl", "zero/decision", "atlas/true_effect_ci", "cost"})
      older.remove(path);
  }
  const auto lacking = [](ProbeRow row) {
    row.alpha_variance.assign(row.alpha_variance.size(), nan);
    for (SetEffect& set : row.ablations[0].sets) set.kl = nan;
    for (SetEffect& set : row.ablations[1].sets) set.decision = Decision::open;
    for (CheckedRoute& route : row.atlas.checked) route.true_effect.ci = {nan, nan};
    row.cost = {nan, nan, nan, nan, nan, nan};
    return testing::text_of(row);
  };
  AnalysisRecord back = open_record(file, record.identity);
  ASSERT_EQ(back.rows.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(testing::text_of(back.rows[i]), lacking(record.rows[i])) << i;

  // A new row brings the datasets back, for all rows.
  back.put(record.rows[2]);
  save_record(back, file);
  const AnalysisRecord again = load_record(file);
  EXPECT_EQ(testing::text_of(again.rows[0]), lacking(record.rows[0]));
  EXPECT_EQ(testing::text_of(again.rows[2]), testing::text_of(record.rows[2]));
}

// Of format 2: its checks were all drawn at random, and its rank correlation was that of first order.
TEST(AnalysisRecordTest, AnAtlasWithoutEstimatesSaysSo) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  save_record(record, file);
  {
    data::hdf5::File older = data::hdf5::File::open_writable(file);
    for (const char* name : {"estimate", "estimate_ci", "checked_by", "first_order_rank_correlation",
                             "estimate_seconds", "check_seconds", "check_passes"})
      older.remove(std::string("atlas/") + name);
  }
  const AnalysisRecord back = load_record(file);
  const Atlas &found = back.rows[2].atlas, &expected = record.rows[2].atlas;
  EXPECT_FALSE(found.empty());
  EXPECT_FALSE(found.has_estimate());
  EXPECT_TRUE(expected.has_estimate());
  EXPECT_EQ(found.first_order[1].value, expected.first_order[1].value);
  EXPECT_EQ(found.random_checks(), expected.checked.size());
  EXPECT_EQ(found.first_order_rank_correlation, expected.rank_correlation);
  EXPECT_TRUE(std::isnan(found.rank_correlation));
  EXPECT_TRUE(std::isnan(found.median_relative_error));
}

TEST(AnalysisRecordTest, AFullDiskLeavesTheFileAsItWas) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  save_record(record, file);
  const std::string before = data::sha256_file(file);
  record.rows[1].intact_nll = 1;
  for (rlim_t bytes : {0, 500, 5000, 20000}) {
    const std::string said = data::on_full_disk(bytes, [&] {
      save_record(record, file);
      return std::string("saved");
    });
    EXPECT_TRUE(holds(said, "analysis.h5: ") && holds(said, "cannot ")) << bytes << " bytes: " << said;
    EXPECT_EQ(data::sha256_file(file), before);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1)
        << "debris at " << bytes << " bytes";
  }
}

TEST(AnalysisRecordTest, RefusesRowsMeasuredOtherwise) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  save_record(record, file);
  EXPECT_EQ(open_record(file, record.identity).rows.size(), 3U);
  EXPECT_TRUE(open_record(dir / "absent.h5", record.identity).rows.empty());

  const auto refused = [&](const auto& change) {
    ProbeIdentity other = record.identity;
    change(other);
    const std::string said = error_of([&] { open_record(file, other); });
    EXPECT_TRUE(said.starts_with(file.string() + ": ")) << said;
    EXPECT_TRUE(holds(said, ": name another file with --out, or remove this one")) << said;
    return said;
  };
  const auto of_settings = [&](const auto& change) {
    return refused([&](ProbeIdentity& other) { change(other.settings); });
  };
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.seed = 10; }), "attribute settings: seed: found 9, expected 10"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.ablations.pop_back(); }),
                    R"(ablations: found ["mask","zero","mean","resample","freeze","patch",)"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.sets = {"all"}; }), R"(sets: found [], expected ["all"])"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.controls = 2; }), "controls: found 1, expected 2"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.margin = 0.5; }), "margin: found 0.01, expected 0.5"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.until_decided = true; }), "until_decided: found false, expected true"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.look_every = 9; }), "look_every: found 8, expected 9"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.by_position = true; }), "by_position: found false, expected true"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.by_repeat = false; }), "by_repeat: found true, expected false"));
  EXPECT_TRUE(holds(refused([](auto& i) { ++i.tokens.ids.back(); }), "/probe_tokens: found other tokens (random ids"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.tokens = i.tokens.first(3); }),
                    "/probe_tokens: found 4 sequences of 8 tokens, expected 3 of 8"));
  EXPECT_TRUE(holds(refused([](auto& i) { ++i.tokens.documents[1]; }),
                    "found the same tokens of documents 3 3 5 11, expected them of documents 3 4 5 11"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.tokens.documents.clear(); }),
                    "of documents 3 3 5 11, expected them of documents that are not known"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.preregistration_sha256.clear(); }),
                    "attribute preregistration_sha256: found eeee"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.preregistration_sha256.clear(); }), "expected none (--preregistration)"));
  EXPECT_TRUE(holds(refused([](auto& i) { ++i.patch.ids.front(); }), "/patch_tokens: found other tokens"));
  EXPECT_TRUE(
      holds(refused([](auto& i) { i.patch = {}; }), "/patch_tokens: found 4 sequences of 8 tokens, expected 0"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.classes.pop_back(); }), "token classes: found class, expected none"));
  EXPECT_TRUE(
      holds(refused([](auto& i) { i.classes[1].labels[0] = "z"; }), "found class (a, b, c), expected class (z, b, c)"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.classes[0].of_token[5] = -1; }), "found other tokens in repeat"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.model_config = "{}"; }), "attribute model_config: found {"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.sets[0] = "x"; }), "/slice: found embedding.attn.early"));
  // The same classes from a file of another name are the same.
  ProbeIdentity moved = record.identity;
  moved.settings.class_file = "elsewhere.json";
  EXPECT_EQ(open_record(file, moved).rows.size(), 3U);
}

TEST(AnalysisRecordTest, TablesFitATerminal) {
  AnalysisRecord record = testing::filled_record();
  record.identity.task.direction = Direction::noising;
  const std::string findings = findings_text(find(record), record);  // which other sets than the slices have not
  record.identity.task.direction = Direction::denoising;
  record.identity.sets[0] = "0.attn-5.mlp:embedding,block_1,block_2,block_3,current";
  for (ProbeRow& row : record.rows) {
    for (AblationEffects& effects : row.ablations) effects.sets[1].delta_nll = {};
    row.cost.plain = 100;
  }
  record.rows.back().step = 123456789;
  std::string text = emergence_table(record) + findings;
  for (const ProbeRow& row : record.rows)
    text += row_table(row, record.identity) + step_line(row, record.identity) + "\n";
  std::istringstream lines(text);
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) EXPECT_LE(line.size(), 120U) << line;
  EXPECT_GT(count, 3U * 6 * 19);
  for (const char* part : {"0.attn-5.mlp:embedd..", "motif embedding_early_mlp", "rank correlation",
                           "cost: ", "task planted, denoising: answers have", "atlas: 5 routes masked, ", "freeze"})
    EXPECT_TRUE(holds(text, part)) << part;
}

// A sentence about the data stands only where the interval says it.
TEST(AnalysisRecordTest, TablesSayWhatLaterRoutingDoesOnlyWhereItIsShown) {
  AnalysisRecord record = testing::filled_record();
  const auto said = [&](const Estimate& share) {
    ProbeRow row = record.rows.back();
    row.ablations.resize(1);
    row.ablations[0].repaired_share = share;
    return row_table(row, record.identity);
  };
  EXPECT_TRUE(holds(said({0.3, {0.1, 0.5}}), "later routing undoes some of the change"));
  EXPECT_TRUE(holds(said({-0.3, {-0.5, -0.1}}), "later routing adds to the change"));
  record.identity.task.direction = Direction::noising;
  EXPECT_TRUE(holds(said({0.3, {0.1, 0.5}}), "30 [10, 50] % of the frozen effect [95 %]: later routing repairs some"));
  EXPECT_TRUE(holds(said({-0.3, {-0.5, -0.1}}), "-30 [-50, -10] % of the frozen effect [95 %]: later routing adds to"));
  EXPECT_TRUE(holds(said({0.3, {-0.1, 0.5}}), "no repair by later routing is shown"));
  EXPECT_FALSE(holds(said({nan, {nan, nan}}), "later routing repairs"));

  AnalysisRecord parts = record;
  for (ProbeRow& row : parts.rows)
    for (std::size_t s = 0; s < 18; ++s)
      for (std::size_t q = 0; q < 4; ++q) {
        const auto effect = [&](Ablation ablation) -> double& {
          for (AblationEffects& effects : row.ablations)
            if (effects.ablation == ablation) return effects.sets[s].delta_nll_sequence[q];
          throw std::logic_error("not measured");
        };
        // Slice 2 alone has an interaction, of 1 nat and hardly any noise.
        const double noise = 1e-6 * std::sin(static_cast<double>(7 * s + 3 * q));
        effect(Ablation::mean_both) = effect(Ablation::mean) + effect(Ablation::mean_key) + noise + (s == 2 ? 1 : 0);
      }
  const std::string text = findings_text(find(parts), parts);
  EXPECT_TRUE(holds(text, "mean: both parts minus value minus key\n    embedding.attn.late   +1.0000")) << text;
  EXPECT_FALSE(holds(text, "mean: both parts minus value minus key\n    embedding.attn.early"));
}

// In denoising the routes that matter lower the nll: the largest effect is the lowest, and what tests for a rise is not
// said.
TEST(AnalysisRecordTest, DenoisingLooksForFalls) {
  AnalysisRecord record = testing::filled_record();
  ProbeRow row = record.rows.back();
  for (SetEffect& set : row.ablations.front().sets) set.delta_nll.value = 0;
  row.ablations.front().sets[2].delta_nll.value = -0.75;
  row.ablations.front().sets[4].delta_nll.value = 0.5;
  ASSERT_EQ(record.identity.task.direction, Direction::denoising);
  EXPECT_TRUE(holds(step_line(row, record.identity), "largest embedding.attn.late -0.7500"));
  const std::string silent = findings_text(find(record), record);
  EXPECT_TRUE(holds(silent, "not tested in denoising"));
  for (const char* claim : {"  motif ", "onset", "rank correlation"}) EXPECT_FALSE(holds(silent, claim)) << silent;
  record.identity.task.direction = Direction::noising;
  EXPECT_TRUE(holds(step_line(row, record.identity), "largest embedding.mlp.mid +0.5000"));
  const std::string text = findings_text(find(record), record);
  EXPECT_TRUE(holds(text, "  motif "));
  EXPECT_FALSE(holds(text, "not tested in denoising"));
}

}  // namespace
}  // namespace routescope::analysis
