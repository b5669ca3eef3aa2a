// A damaged routing.h5: the error names the last intact step, salvage keeps every intact row, and the run goes on.
#include <gtest/gtest.h>

#include <fstream>

#include "data/base/files.h"
#include "data/hdf5/chunks.h"
#include "data/journal/journal.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_check.h"

namespace routescope::data {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSteps = 40;

class RoutingSalvageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    RoutingRecord record = RoutingRecord::create(file_, info_);
    for (std::int64_t step = 1; step <= kSteps; ++step) record_step(record, step, info_);
    record.flush(true);
  }

  // Changes a byte of row `row` of a dataset, in the file; chunks of /alpha hold part of one row.
  void damage(const std::string& path, std::int64_t row) const {
    std::int64_t at = 0;
    {
      const hdf5::File file = hdf5::File::open(file_);
      const hdf5::Dataset data = file.dataset(path);
      const std::int64_t chunk = hdf5::chunk_shape(data).at(0);
      hdf5::Shape first(data.shape().size(), 0);
      first[0] = row / chunk * chunk;
      std::int64_t row_bytes = hdf5::element_bytes(data);
      for (std::size_t axis = 1; axis < first.size(); ++axis) row_bytes *= data.shape()[axis];
      at = hdf5::stored_chunk(data, first).address + (hdf5::is_filtered(data) ? 20 : row % chunk * row_bytes);
    }
    std::fstream bytes(file_, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekg(at);
    const int old = bytes.get();
    bytes.seekp(at);
    bytes.put(static_cast<char>(old ^ 0x10));
  }

  // Resuming at `step` must be refused with the news that all is intact up to `intact`.
  void expect_refused(std::int64_t step, std::int64_t intact) const {
    const std::string before = read_text(file_), journal = read_text(journal_name(file_));
    try {
      RoutingRecord::resume(file_, info_, step);
      ADD_FAILURE() << "resumed at step " << step;
    } catch (const RecordDamaged& error) {
      EXPECT_EQ(error.intact_step, intact) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with(file_.string() + ": intact up to step"));
    }
    EXPECT_TRUE(read_text(file_) == before && read_text(journal_name(file_)) == journal) << "something was changed";
  }
  void expect_resumes(std::int64_t step) const {
    { const RoutingRecord record = RoutingRecord::resume(file_, info_, step); }
    EXPECT_EQ(check(file_, info_, step), "");
  }

  TempDir dir_;
  fs::path file_ = dir_ / "routing.h5";
  RoutingRecordInfo info_ = small_info();
};

TEST_F(RoutingSalvageTest, TheErrorNamesTheLastIntactStep) {
  damage("/train/loss", 29);  // of step 30
  expect_error([&] { RoutingRecordView::load(file_); }, {file_.string(), "/train/crc32", "row 29", "after 29"});
  expect_refused(kSteps, 29);
  expect_refused(30, 29);
  damage("/query", 11);  // of step 24
  expect_refused(kSteps, 23);
  damage("/alpha", 4);  // of step 20
  expect_refused(kSteps, 19);
  damage("/valid/loss", 2);  // of step 6
  expect_refused(kSteps, 5);
  expect_resumes(5);
}

TEST_F(RoutingSalvageTest, DamageAfterTheCheckpointIsComputedAgain) {
  damage("/train/loss", 29);
  damage("/alpha", 7);
  expect_resumes(29);
}

TEST_F(RoutingSalvageTest, ARecordThatIsShorterThanTheRunIsRefused) {
  expect_refused(kSteps + 5, kSteps);
  expect_resumes(kSteps);
}

TEST_F(RoutingSalvageTest, ASalvagedRecordGoesOnWithoutTheLostRows) {
  damage("/train/loss", 29);
  damage("/alpha", 4);
  const fs::path salvaged = dir_ / "salvaged.h5";
  EXPECT_EQ(
      salvage(file_, salvaged),
      "20 snapshots, 9 per-token rows, 39 training rows, 20 validation rows, 2 rows lost, the first after step 19");
  expect_error([&] { salvage(file_, salvaged); }, {salvaged.string(), "exists already"});
  fs::rename(salvaged, file_);
  fs::rename(journal_name(salvaged), journal_name(file_));
  {
    RoutingRecord record = RoutingRecord::resume(file_, info_, kSteps);
    record_step(record, kSteps + 1, info_);
  }
  const RoutingRecordView view = RoutingRecordView::load(file_);
  ASSERT_EQ(view.train.size(), 40u);
  EXPECT_EQ(view.train[28].step, 29);
  EXPECT_EQ(view.train[29].step, 31);
  for (const TrainRow& row : view.train) EXPECT_TRUE(same(row, train_at(row.step))) << row.step;
  EXPECT_EQ(view.alpha_steps, (std::vector<std::int64_t>{4, 8, 12, 16, 24, 28, 32, 36, 40}));
}

TEST_F(RoutingSalvageTest, TheJournalReplacesTheWholeStructure) {
  const auto journal = read_journal(file_);
  ASSERT_TRUE(journal);
  std::int64_t lost = 0;
  {
    std::fstream bytes(file_, std::ios::in | std::ios::out | std::ios::binary);
    for (const auto& [address, piece] : journal->image.pieces()) {
      if (address <= journal->mark.address && address + static_cast<std::int64_t>(piece.size()) > journal->mark.address)
        continue;  // what tells that it is this file
      bytes.seekp(address);
      bytes << std::string(piece.size(), '\xff');
      lost += static_cast<std::int64_t>(piece.size());
    }
  }
  EXPECT_GT(lost, 10000);
  EXPECT_ANY_THROW(hdf5::File::open(file_));
  EXPECT_EQ(check(file_, info_, kSteps), "");
  expect_resumes(kSteps);
}

TEST_F(RoutingSalvageTest, AJournalOfAnotherFileIsIgnored) {
  const std::string journal = read_text(journal_name(file_));
  expect_resumes(20);
  std::ofstream(journal_name(file_), std::ios::binary) << journal;
  EXPECT_FALSE(hdf5::File::open_with_journal(file_));
  EXPECT_EQ(check(file_, info_, 20), "");
  expect_resumes(10);
}

TEST_F(RoutingSalvageTest, RecordsOfTheFirstVersionAreResumed) {
  { const RoutingRecord closed = RoutingRecord::resume(file_, info_, kSteps); }
  fs::remove(journal_name(file_));
  {
    hdf5::File file = hdf5::File::open_writable(file_);
    for (const char* path : {"/crc32", "/alpha_crc32", "/train/crc32", "/valid/crc32", "/id"}) file.remove(path);
    file.set("version", std::vector<std::int64_t>{1, 0});
    H5Adelete(file.id(), "fixed_crc32");
    file.close();
  }
  EXPECT_EQ(check(file_, info_, kSteps), "");
  expect_resumes(30);
  EXPECT_TRUE(hdf5::File::open_with_journal(file_));
  damage("/train/loss", 7);
  expect_refused(30, 7);
}

}  // namespace
}  // namespace routescope::data
