// coalitions.h5: what is written is read, the page describes it, and other files are refused with one line.
#include "analysis/coalitions/coalition_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/coalitions/filled_coalitions.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/format_page.h"

namespace routescope::analysis {
namespace {

using data::hdf5::Shape;
using Lines = std::vector<std::string>;

class CoalitionFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    record_ = testing::filled_coalitions();
    save_coalitions(record_, file_);
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
    data::expect_error([&] { load_coalitions(file_); }, parts);
  }

  data::TempDir dir_;
  std::filesystem::path file_ = dir_ / "coalitions.h5";
  CoalitionRecord record_;
  std::string whole_;
};

TEST_F(CoalitionFileTest, HoldsEveryNumber) {
  const CoalitionRecord read = load_coalitions(file_);
  EXPECT_EQ(difference_of(read.identity, record_.identity), "");
  EXPECT_EQ(read.created, record_.created);
  ASSERT_EQ(read.rows.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.rows[i].step, record_.rows[i].step);
    EXPECT_EQ(read.rows[i].model_sha256, record_.rows[i].model_sha256);
    EXPECT_EQ(read.rows[i].in_company, record_.rows[i].in_company);
    for (const auto& field : coalition_fields()) {
      const std::vector<double> was = field.get(record_.rows[i]), is = field.get(read.rows[i]);
      EXPECT_FALSE(was.empty()) << field.path;
      EXPECT_EQ(was, is) << field.path;
    }
  }
}

TEST_F(CoalitionFileTest, HoldsTheAnswersOfATask) {
  record_.identity.tokens.answers.assign(6, {3, -1});
  record_.identity.tokens.answers[4] = {6, 9};
  save_coalitions(record_, file_);
  const CoalitionIdentity read = load_coalitions(file_).identity;
  EXPECT_EQ(difference_of(read, record_.identity), "");
  CoalitionIdentity other = record_.identity;
  other.tokens.answers[4].distractor = 8;
  EXPECT_NE(difference_of(read, other).find("/answer_position: found other answers"), std::string::npos);
  other.tokens.answers.clear();
  EXPECT_NE(difference_of(read, other).find("/answer_position"), std::string::npos);
  whole_ = data::read_text(file_);
  replace<std::int32_t>("answer_position", {6}, 7);
  expect_refused({"/answer_position: element 0: found 7, expected 0 to 6"});
}

TEST_F(CoalitionFileTest, ThePageAndTheFileAgree) {
  record_.identity.tokens.answers.assign(6, {3, -1});
  save_coalitions(record_, file_);
  const data::hdf5::File file = data::hdf5::File::open(file_);
  EXPECT_EQ(testing::differences(testing::page_fields(testing::read_page("coalitions.md")), testing::file_fields(file)),
            Lines{});
}

TEST_F(CoalitionFileTest, OtherTypesShapesAndValuesAreRefused) {
  replace<float>("nll", {2});
  expect_refused({"/nll: found float32 [2], expected float64 [2]"});
  replace<double>("alone_loss", {2, 18, 5});
  expect_refused({"/alone_loss: found float64 [2, 18, 5], expected float64 [2, 18, 6]"});
  replace<std::uint8_t>("in_company", {2, 18}, 4);
  expect_refused({"/in_company: step 0: found 4, expected 0 to 3"});
  replace<std::int32_t>("partner", {2, 18}, 18);
  expect_refused({"/partner: step 0: found 18, expected -1"});
  replace<std::int32_t>("partner", {2, 18}, -1);
  expect_refused({"/partner: step 0: found -1, expected the number of a slice"});
  replace<std::int64_t>("step", {2}, 7);
  expect_refused({"/step: found step 7 after 7, expected a later one"});
  replace<double>("slice", {18});
  expect_refused({"/slice"});
}

TEST_F(CoalitionFileTest, OtherAttributesAreRefused) {
  replace_attribute("filetype", "something");
  expect_refused({"attribute filetype: found 'something', expected 'routescope coalitions'"});
  replace_attribute("settings", "{}");
  expect_refused({"attribute settings: seed: found nothing, expected a value"});
  replace_attribute("settings", R"({"seed":1,"permutations":-1,"until_width":0,"margin":0.1})");
  expect_refused({"attribute settings: permutations: found -1, expected 0 to 10000"});
  replace_attribute("settings", R"({"seed":1,"permutations":1,"until_width":-1,"margin":0.1})");
  expect_refused({"attribute settings: until_width: found -1, expected a finite number from 0"});
  replace_attribute("settings", R"({"seed":1,"permutations":1,"until_width":0,"margin":0})");
  expect_refused({"attribute settings: margin: found 0, expected a finite number above 0"});
  replace_attribute("settings", R"({"seed":1,"permutations":1,"until_width":0,"margin":0.1,"more":1})");
  expect_refused({"attribute settings: found 5 keys, expected 4"});
  data::write_text_atomically(file_, whole_.substr(0, whole_.size() / 2));
  expect_refused({"coalitions.h5"});
}

TEST_F(CoalitionFileTest, WhatWasMeasuredOtherwiseIsNamed) {
  CoalitionIdentity other = record_.identity;
  other.settings.seed = 2;
  data::expect_error([&] { open_coalitions(file_, other); },
                     {"coalitions.h5: attribute settings: found {\"seed\":1", "--out"});
  other = record_.identity;
  other.tokens.ids[3] ^= 1;
  data::expect_error([&] { open_coalitions(file_, other); }, {"/probe_tokens: found other tokens"});
  other = record_.identity;
  other.model_config = "{}";
  data::expect_error([&] { open_coalitions(file_, other); }, {"attribute model_config: found"});
  EXPECT_EQ(open_coalitions(file_, record_.identity).rows.size(), 2U);
  EXPECT_EQ(open_coalitions(dir_ / "none.h5", record_.identity).rows.size(), 0U);
}

TEST_F(CoalitionFileTest, AFailedWriteLeavesTheOldFile) {
  record_.rows[1].alone.pop_back();
  EXPECT_THROW(save_coalitions(record_, file_), std::logic_error);
  EXPECT_EQ(data::read_text(file_), whole_);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 1);
}

}  // namespace
}  // namespace routescope::analysis
