// circuit.h5: what is written is read, the page describes it, and other files are refused with one line.
#include "analysis/circuits/circuit_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/circuits/filled_circuits.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/format_page.h"

namespace routescope::analysis {
namespace {

using data::hdf5::Shape;
using Lines = std::vector<std::string>;

class CircuitFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    record_ = testing::filled_circuits({.baselines = 2}, model::AttnResSource::block_sum, true);
    save_circuits(record_, file_);
    whole_ = data::read_text(file_);
  }
  template <class T>
  void replace(const std::string& path, const Shape& shape, T value = {}) {
    data::write_text_atomically(file_, whole_);
    data::hdf5::File file = data::hdf5::File::open_writable(file_);
    std::int64_t size = 1;
    for (const std::int64_t length : shape) size *= length;
    file.remove(path);
    file.write(path, std::vector<T>(static_cast<std::size_t>(size), value), shape);
    file.close();
  }
  void replace_attribute(const std::string& name, const std::string& text) {
    data::write_text_atomically(file_, whole_);
    data::hdf5::File file = data::hdf5::File::open_writable(file_);
    file.set(name, text);
    file.close();
  }
  void expect_refused(const Lines& parts) const {
    data::expect_error([&] { load_circuits(file_); }, parts);
  }

  data::TempDir dir_;
  std::filesystem::path file_ = dir_ / "circuit.h5";
  CircuitRecord record_;
  std::string whole_;
};

TEST_F(CircuitFileTest, HoldsEveryNumber) {
  const CircuitRecord read = load_circuits(file_);
  EXPECT_EQ(difference_of(read.identity, record_.identity), "");
  EXPECT_EQ(read.identity.held_out, record_.identity.held_out);
  EXPECT_EQ(read.created, record_.created);
  ASSERT_EQ(read.rows.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.rows[i].step, record_.rows[i].step);
    EXPECT_EQ(read.rows[i].model_sha256, record_.rows[i].model_sha256);
    for (const auto& field : circuit_fields()) {
      const std::vector<double> was = field.get(record_.rows[i]), is = field.get(read.rows[i]);
      ASSERT_EQ(was.size(), is.size()) << field.path;
      for (std::size_t v = 0; v < was.size(); ++v)
        EXPECT_TRUE(was[v] == is[v] || (std::isnan(was[v]) && std::isnan(is[v]))) << field.path << " " << v;
    }
  }
}

TEST_F(CircuitFileTest, ThePageAndTheFileAgree) {
  const data::hdf5::File file = data::hdf5::File::open(file_);
  EXPECT_EQ(testing::differences(testing::page_fields(testing::read_page("circuit.md")), testing::file_fields(file)),
            Lines{});
}

TEST_F(CircuitFileTest, OtherTypesShapesAndValuesAreRefused) {
  const std::int64_t edges = std::ssize(record_.rows[0].kept);
  replace<float>("nll", {2});
  expect_refused({"/nll: found float32 [2], expected float64 [2]"});
  replace<double>("none_ci", {2, 3});
  expect_refused({"/none_ci: found float64 [2, 3], expected float64 [2, 2]"});
  replace<std::uint8_t>("kept", {2, edges}, 2);
  expect_refused({"/kept: step 0: found 2, expected 0 or 1"});
  replace<double>("kept", {2, edges});
  expect_refused({"/kept: found float64", "expected uint8"});
  replace<std::int64_t>("step", {2}, 7);
  expect_refused({"/step: found step 7 after 7, expected a later one"});
  replace<std::int64_t>("step", {400});
  expect_refused({"/model_sha256"});
  replace<std::int32_t>("probe_tokens", {6, 8});
  expect_refused({"/probe_tokens: no attribute \"origin\""});
  replace<std::int64_t>("probe_document", {6}, 1);
  expect_refused({"circuit.h5", "found 1 document, expected at least 2"});
  replace<std::int64_t>("k", {3});
  expect_refused({"/k: found other values than follow from"});
  replace<std::int32_t>("held_out_seq", {3});
  expect_refused({"/held_out_seq: found other values than follow from"});
  replace<double>("edge", {2});
  expect_refused({"/edge"});
  replace<std::int32_t>("answer_position", {6}, 7);
  expect_refused({"/answer_position", "found 7, expected 0 to 6"});
  replace<std::int32_t>("answer_distractor", {5});
  expect_refused({"/answer_distractor: found int32 [5], expected int32 [6]"});
}

TEST_F(CircuitFileTest, OtherAttributesAreRefused) {
  replace_attribute("filetype", "something");
  expect_refused({"attribute filetype: found 'something', expected 'routescope circuits'"});
  replace_attribute("settings", "{}");
  expect_refused({"attribute settings: seed: found nothing, expected a value"});
  const std::string good = to_json(record_.identity.settings);
  const auto with = [&](const std::string& what, const std::string& to) {
    std::string text = good;
    replace_attribute("settings", text.replace(text.find(what), what.size(), to));
  };
  with("\"baselines\":2", "\"baselines\":100000000");
  expect_refused({"attribute settings: baselines: found 100000000, expected 0 to 1000"});
  with("\"mean\"", "\"mask\"");
  expect_refused({"attribute settings: ablation: found mask, expected mean, zero or resample"});
  with("\"exact\"", "\"best\"");
  expect_refused({"attribute settings: score: found 'best', expected exact or estimate"});
  with("\"faithfulness\":0.9", "\"faithfulness\":2");
  expect_refused({"attribute settings: faithfulness: found 2, expected a number above 0, at most 1"});
  with("\"prune\":false", "\"prune\":false,\"more\":1");
  expect_refused({"attribute settings: found 7 keys, expected 6"});
  replace_attribute("model_config", "{\"hidden_size\": 3}");
  expect_refused({"circuit.h5", "model_config"});
  data::write_text_atomically(file_, whole_.substr(0, whole_.size() / 2));
  expect_refused({"circuit.h5"});
}

TEST_F(CircuitFileTest, WhatWasMeasuredOtherwiseIsNamed) {
  CircuitIdentity other = record_.identity;
  other.settings.seed = 2;
  data::expect_error([&] { open_circuits(file_, other); },
                     {"circuit.h5: attribute settings: found {\"seed\":1", "--out"});
  other = record_.identity;
  other.tokens.ids[3] ^= 1;
  data::expect_error([&] { open_circuits(file_, other); }, {"/probe_tokens: found other tokens"});
  other = record_.identity;
  other.tokens.documents[0] = 9;
  data::expect_error([&] { open_circuits(file_, other); }, {"/probe_document"});
  other = record_.identity;
  other.tokens.answers[0].distractor = 1;
  data::expect_error([&] { open_circuits(file_, other); }, {"/answer_position: found other answers"});
  other = record_.identity;
  other.model_config = "{}";
  data::expect_error([&] { open_circuits(file_, other); }, {"attribute model_config: found"});
  EXPECT_EQ(open_circuits(file_, record_.identity).rows.size(), 2U);
  EXPECT_EQ(open_circuits(dir_ / "none.h5", record_.identity).rows.size(), 0U);
}

// Eight programs add two rows each.
TEST_F(CircuitFileTest, ProgramsThatAddRowsAtATimeLoseNone) {
  const std::filesystem::path file = dir_ / "shared.h5";
  std::vector<pid_t> children;
  for (std::int64_t p = 0; p < 8; ++p) {
    std::fflush(nullptr);
    children.push_back(::fork());
    if (children.back() != 0) continue;
    int status = 0;
    try {
      CircuitRow row = record_.rows[0];
      for (row.step = p; row.step < 16; row.step += 8) add_circuit(file, record_.identity, row);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      status = 1;
    }
    ::_exit(status);
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const CircuitRecord all = load_circuits(file);
  ASSERT_EQ(all.rows.size(), 16U);
  for (std::int64_t step = 0; step < 16; ++step) EXPECT_EQ(all.rows[static_cast<std::size_t>(step)].step, step);
  join_circuits(file);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 2) << "parts are left";
  EXPECT_EQ(load_circuits(file).rows.size(), 16U);
}

// A part that nobody joined, as a killed program leaves it, is read and joined.
TEST_F(CircuitFileTest, PartsCountBeforeTheyAreJoined) {
  const std::filesystem::path file = dir_ / "shared.h5";
  CircuitRecord part = record_;
  part.rows.pop_back();
  save_circuits(part, dir_ / "shared.h5-step-00000000-0123456789abcdef.part");
  EXPECT_TRUE(circuits_exist(file));
  EXPECT_EQ(load_circuits(file).rows.size(), 1U);
  EXPECT_FALSE(std::filesystem::exists(file));
  add_circuit(file, record_.identity, record_.rows[1]);
  EXPECT_EQ(load_circuits(file).rows.size(), 2U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 2) << "parts are left";
}

// Of one step and the same weights the quicker row stays; nothing of other weights or settings is lost.
TEST_F(CircuitFileTest, OneStepIsOneRowAndTheOtherIsKeptElsewhere) {
  CircuitRow row = record_.rows[1];
  row.seconds = 1e9;
  add_circuit(file_, record_.identity, row);
  EXPECT_EQ(load_circuits(file_).rows[1].seconds, record_.rows[1].seconds);
  row.seconds = 1e-9;
  add_circuit(file_, record_.identity, row);
  EXPECT_EQ(load_circuits(file_).rows[1].seconds, 1e-9);
  row.model_sha256 = "other";
  data::expect_error([&] { add_circuit(file_, record_.identity, row); },
                     {"/model_sha256: step 7: found sha of step 7, expected other", "the row of step 7 is in "});
  CircuitIdentity other = record_.identity;
  other.settings.faithfulness = 0.8;
  data::expect_error([&] { add_circuit(file_, other, row); }, {"attribute settings", "the row of step 7 is in "});
  EXPECT_EQ(load_circuits(file_).rows.size(), 2U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 3);
}

TEST_F(CircuitFileTest, AFailedWriteLeavesTheOldFile) {
  record_.rows[1].kept.pop_back();
  EXPECT_THROW(save_circuits(record_, file_), std::logic_error);
  EXPECT_EQ(data::read_text(file_), whole_);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 1);
}

}  // namespace
}  // namespace routescope::analysis
