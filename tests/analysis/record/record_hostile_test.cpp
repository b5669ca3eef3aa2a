// An analysis.h5 whose datasets have other types, shapes or values than its format: each is refused with one line.
#include <gtest/gtest.h>

#include "analysis/record/record.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using data::hdf5::Shape;

class RecordHostileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    AnalysisRecord record = testing::filled_record();
    save_record(record, file_);
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
  void expect_refused(const std::vector<std::string>& parts) const {
    data::expect_error([&] { load_record(file_); }, parts);
  }

  data::TempDir dir_;
  std::filesystem::path file_ = dir_ / "analysis.h5";
  std::string whole_;
};

TEST_F(RecordHostileTest, TypesAndShapesAreThoseOfTheFormat) {
  replace<float>("mass", {3, 18});
  expect_refused({"/mass: found float32 [3, 18], expected float64 [3, 18]"});
  replace<double>("mask/delta_nll_ci", {3, 18, 3});
  expect_refused({"/mask/delta_nll_ci: found float64 [3, 18, 3], expected float64 [3, 18, 2]"});
  replace<double>("intact/nll", {300});
  expect_refused({"/intact/nll: found float64 [300], expected float64 [3]"});
  replace<std::int32_t>("probe_tokens", {4, 0});
  expect_refused({"/probe_tokens: found int32 [4, 0], expected int32 [4, 8]"});
  replace<std::int64_t>("probe_document", {3}, 1);
  expect_refused({"/probe_document: found int64 [3], expected int64 [4]"});
  replace<std::int64_t>("probe_document", {4}, -7);
  expect_refused({"/probe_document: sequence 0: found document -7"});
  replace<std::int32_t>("pos", {0});
  expect_refused({"/probe_tokens", "expected int32 [4, 0]"});
  replace<double>("step", {3});
  expect_refused({"/step: found float64 [3], expected int64 [3]"});
  replace<std::int64_t>("model_sha256", {3});
  expect_refused({"/model_sha256: found int64 [3], expected string [3]"});
  replace<std::int32_t>("atlas/check", {400});
  expect_refused({"/atlas/checked_read", "expected int32 [2, 400]"});
}

TEST_F(RecordHostileTest, ValuesMeanSomething) {
  replace<std::int64_t>("step", {3}, 7);
  expect_refused({"/step: found step 7 after 7"});
  replace<std::int64_t>("atlas/step", {2}, 3);
  expect_refused({"atlas/step"});
  replace<std::uint8_t>("mask/decision", {3, 18}, 7);
  expect_refused({"mask/decision: step 0: found 7, expected 0 to 2"});
  replace<std::int32_t>("token_class", {4, 8}, 3);
  expect_refused({"/token_class: element 0: found class 3, expected -1 to 2"});
  replace<std::int32_t>("atlas/checked_read", {2, 5}, 1000);
  expect_refused({"found route (1000, "});
  replace<std::int32_t>("atlas/checked_by", {2, 5}, 2);
  expect_refused({"atlas/checked_by: step 1: found 2, expected 0 or 1"});
}

TEST_F(RecordHostileTest, SettingsAreThoseOfAMeasurement) {
  const std::string settings = data::hdf5::File::open(file_).text("settings");
  const auto changed = [&](const std::string& key, const std::string& value) {
    const std::size_t at = settings.find('"' + key + "\":") + key.size() + 3, end = settings.find(',', at);
    return settings.substr(0, at) + value + settings.substr(end);
  };
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"margin", "null"},
                                                                                   {"margin", "-1"},
                                                                                   {"margin", "0"},
                                                                                   {"controls", "1e300"},
                                                                                   {"controls", "-3"},
                                                                                   {"controls", "2.5"},
                                                                                   {"controls", "4294967300"},
                                                                                   {"seed", "-1"},
                                                                                   {"look_every", "0"}}) {
    replace_attribute("settings", changed(key, value));
    expect_refused({"attribute settings", key});
  }
  replace_attribute("settings", changed("sets", "[\"all\"]"));
  expect_refused({"/slice: found ", "expected all as in attribute settings"});
}

}  // namespace
}  // namespace routescope::analysis
