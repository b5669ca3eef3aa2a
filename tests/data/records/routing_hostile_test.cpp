// A routing.h5 whose datasets have other types and shapes than their axes say, without the checksums that an older one
// may lack: each is refused with a line that names the dataset.
#include <gtest/gtest.h>
#include <hdf5.h>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/journal/journal.h"
#include "data/records/inspect.h"
#include "data/records/routing_file.h"
#include "data/records/routing_view.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_fixture.h"

namespace routescope::data {
namespace {

using hdf5::File;
using hdf5::Shape;

class RoutingHostileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    {
      RoutingRecord record = RoutingRecord::create(file_, info_);
      for (std::int64_t step = 1; step <= 8; ++step) record_step(record, step, info_);
      record.flush(true);
    }
    std::filesystem::remove(journal_name(file_));
    File file = File::open_writable(file_);
    for (const routing_format::TableFields& table : routing_format::table_fields()) file.remove(table.checksum.path);
    H5Adelete(file.id(), "fixed_crc32");
    file.close();
    whole_ = read_text(file_);
  }
  /// Puts another dataset in a place of the intact file.
  template <class T>
  void replace(const std::string& path, const Shape& shape, T value = {}) {
    write_text_atomically(file_, whole_);
    File file = File::open_writable(file_);
    file.remove(path);
    std::int64_t size = 1;
    for (const std::int64_t length : shape) size *= length;
    file.write(path, std::vector<T>(static_cast<std::size_t>(size), value), shape);
    file.close();
  }
  void expect_refused(const std::string& path, const std::string& found) const {
    expect_error([&] { RoutingRecordView::load(file_); }, {file_.string() + ": " + path, found});
    expect_error([&] { inspect(file_); }, {file_.string() + ": " + path, found});
  }

  TempDir dir_;
  std::filesystem::path file_ = dir_ / "routing.h5";
  RoutingRecordInfo info_ = small_info();
  std::string whole_;
};

TEST_F(RoutingHostileTest, TheIntactFileIsRead) {
  EXPECT_EQ(RoutingRecordView::load(file_).train.size(), 8U);
}

TEST_F(RoutingHostileTest, TypesAreThoseOfTheSchema) {
  replace<float>("/train/loss", {8});
  expect_refused("/train/loss", "found float32 [8], expected float64 [8]");
  replace<std::uint8_t>("/alpha_std", {4, 4, 3});
  expect_refused("/alpha_std", "found uint8 [4, 4, 3], expected float32 [4, 4, 3]");
  replace<std::int32_t>("/step", {4});
  expect_refused("/step", "found int32 [4], expected int64 [4]");
  replace<std::int64_t>("/probe_tokens", {3, 5});
  expect_refused("/probe_tokens", "found int64 [3, 5], expected int32 [3, 5]");
  replace<float>("/read", {4});
  expect_refused("/read", "found float32 [4], expected string [4]");
}

TEST_F(RoutingHostileTest, ShapesAreThoseOfTheAxes) {
  replace<float>("/alpha_entropy", {4, 400});
  expect_refused("/alpha_entropy", "found float32 [4, 400], expected float32 [4, 4]");
  replace<float>("/alpha_entropy", {4, 4, 1});
  expect_refused("/alpha_entropy", "expected float32 [4, 4]");
  replace<float>("/bias", {4, 0});
  expect_refused("/bias", "found float32 [4, 0]");
  replace<std::int32_t>("/layer", {200});
  expect_refused("/layer", "found int32 [200], expected int32 [4]");
  replace<std::int32_t>("/probe_tokens", {3, 0});
  expect_refused("/probe_tokens", "found int32 [3, 0], expected int32 [3, 5]");
  replace<std::int32_t>("/probe_tokens", {15});
  expect_refused("/probe_tokens", "found int32 [15]");
  replace<std::int32_t>("/pos", {0});
  expect_refused("/probe_tokens", "expected int32 [3, 0]");
  replace<double>("/train/loss", {3});  // fewer rows than steps
  expect_refused("/train/loss", "rows 0 to 8 asked for, shape is [3]");
}

TEST_F(RoutingHostileTest, DocumentsAreNumbersOrNotKnown) {
  replace<std::int32_t>("/probe_document", {3}, 2);
  expect_refused("/probe_document", "found int32 [3], expected int64 [3]");
  replace<std::int64_t>("/probe_document", {2}, 2);
  expect_refused("/probe_document", "found int64 [2], expected int64 [3]");
  replace<std::int64_t>("/probe_document", {3}, -2);
  expect_refused("/probe_document", "sequence 0: found document -2, expected 0 or more, or -1 for every sequence");
}

TEST_F(RoutingHostileTest, StepsRise) {
  replace<std::int64_t>("/train/step", {8});
  expect_refused("/train/step", "found step 0 after 0, expected a later one");
}

TEST_F(RoutingHostileTest, AColumnMayBeLongerThanItsSteps) {
  // What a writer leaves that is killed between a row's values and its step.
  replace<double>("/valid/loss", {9});
  EXPECT_EQ(RoutingRecordView::load(file_).valid.size(), 4U);
}

TEST_F(RoutingHostileTest, ADirectoryIsNoRecord) {
  std::filesystem::remove(file_);
  std::filesystem::create_directory(file_);
  expect_error([&] { RoutingRecordView::load(file_); }, {file_.string(), "directory"});
  expect_error([&] { RoutingRecord::resume(file_, info_, 3); }, {file_.string(), "directory"});
}

TEST_F(RoutingHostileTest, AJournalWithAddressesOfNoFileIsCutThere) {
  ByteImage image;
  write_text_atomically(dir_ / "x.journal", "RSJOURN1 and then nothing of a journal");
  EXPECT_FALSE(read_journal(dir_ / "x").has_value());
}

}  // namespace
}  // namespace routescope::data
