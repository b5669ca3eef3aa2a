// A routing.h5 that was written before a column was added is read, resumed and salvaged; the column is missing in it.
#include "tests/data/records/older_record.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/hdf5/chunks.h"
#include "data/journal/journal.h"
#include "data/records/routing_record.h"
#include "data/records/routing_table.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_check.h"

namespace routescope::data {
namespace {

constexpr std::int64_t kSteps = 12;

// The checksums of a table's rows as the program wrote them that knew only the columns that the table has.
void write_older_checksums(const hdf5::File& file, const routing_format::TableFields& fields) {
  routing_format::TableReader reader(routing_format::Table(file, fields), true);
  const std::size_t rows = reader.steps().size();
  const routing_format::RowBlock block = reader.read(0, static_cast<std::int64_t>(rows));
  std::vector<std::int64_t> sums;
  for (std::size_t row = 0; row < rows; ++row) {
    routing_format::RowChecksum sum;
    sum.add(reader.steps()[row]);
    for (std::size_t c = 0; c < block.columns.size(); ++c)
      if (reader.table().columns[c]) sum.add_bytes(routing_format::row_of(block.columns[c], row, rows));
    sums.push_back(sum.value());
  }
  file.dataset(fields.checksum.path).write_rows<std::int64_t>(0, sums);
}

class OlderRecordTest : public ::testing::Test {
 protected:
  // A finished record without /train/grad_norm and /gain, and without what versions 1.2 and 1.3 added.
  void SetUp() override {
    {
      RoutingRecord record = RoutingRecord::create(file_, info_);
      for (std::int64_t step = 1; step <= kSteps; ++step) record_step(record, step, info_);
    }
    std::filesystem::remove(journal_name(file_));
    hdf5::File file = hdf5::File::open_writable(file_);
    for (const char* path : {"/train/grad_norm", "/train/rank_seconds_median", "/train/rank_seconds_slowest",
                             "/train/slowest_rank", "/gain", "/contribution_mean", "/norm_mass_mean"})
      file.remove(path);
    write_older_checksums(file, routing_format::table_fields()[0]);
    write_older_checksums(file, routing_format::table_fields()[2]);
    file.close();
  }

  // "" if rows of steps up to `older` lack these columns and have all others, and rows of later steps have all; else
  // what is wrong.
  std::string check_rows(const std::filesystem::path& file, std::int64_t older, std::int64_t last) const {
    const RoutingRecordView view = RoutingRecordView::load(file);
    if (std::ssize(view.train) != last) return fmt::format("{} training rows", view.train.size());
    for (const TrainRow& row : view.train) {
      TrainRow expected = train_at(row.step);
      if (row.step <= older) {
        for (double* column : {&expected.grad_norm, &expected.rank_seconds_median, &expected.rank_seconds_slowest})
          *column = std::nan("");
        expected.slowest_rank = -1;
      }
      if (!same(row, expected)) return fmt::format("training row of step {}", row.step);
    }
    for (const RoutingSnapshot& row : view.snapshots) {
      RoutingSnapshot expected = snapshot_at(row.step, info_);
      for (auto* column : {&expected.gain, &expected.contribution_mean, &expected.norm_mass_mean})
        if (row.step <= older) column->assign(column->size(), std::nanf(""));
      if (!same(row, expected)) return fmt::format("snapshot of step {}", row.step);
    }
    return "";
  }

  TempDir dir_;
  std::filesystem::path file_ = dir_ / "routing.h5";
  RoutingRecordInfo info_ = small_info();
};

TEST_F(OlderRecordTest, IsReadAndVerified) {
  EXPECT_EQ(check_rows(file_, kSteps, kSteps), "");
  {
    hdf5::File file = hdf5::File::open_writable(file_);
    file.dataset("/train/loss").write_rows<double>(6, std::vector<double>{0.5});
    file.close();
  }
  expect_error([&] { RoutingRecordView::load(file_); }, {"/train/crc32", "row 6"});
}

TEST_F(OlderRecordTest, GetsTheColumnWhenItIsResumed) {
  {
    RoutingRecord record = RoutingRecord::resume(file_, info_, 8);
    for (std::int64_t step = 9; step <= kSteps; ++step) record_step(record, step, info_);
  }
  EXPECT_EQ(check_rows(file_, 8, kSteps), "");
  EXPECT_EQ(hdf5::File::open(file_).dataset("/gain").shape(), (hdf5::Shape{6, 4, 8}));
  // And once more, with the checksums of all columns.
  { const RoutingRecord record = RoutingRecord::resume(file_, info_, 10); }
  EXPECT_EQ(check_rows(file_, 8, 10), "");
}

TEST_F(OlderRecordTest, HasTokensOfDocumentsThatAreNotKnown) {
  testing::make_version_1_1(file_, info_.probe_tokens);
  EXPECT_EQ(RoutingRecordView::load(file_).info.probe_tokens, info_.probe_tokens);
  EXPECT_TRUE(RoutingRecordView::load(file_).info.probe_documents.empty());
  // It goes on with the tokens that it has.
  expect_error([&] { RoutingRecord::resume(file_, info_, 8); }, {"/probe_document"});
  info_.probe_documents.clear();
  { const RoutingRecord record = RoutingRecord::resume(file_, info_, 8); }
  EXPECT_EQ(check_rows(file_, 8, 8), "");
  EXPECT_EQ(hdf5::File::open(file_).read<std::int64_t>("/probe_document"), (std::vector<std::int64_t>{-1, -1, -1}));
  EXPECT_TRUE(RoutingRecordView::load(file_).info.probe_documents.empty());
}

TEST_F(OlderRecordTest, IsSalvaged) {
  const std::filesystem::path salvaged = dir_ / "salvaged.h5";
  EXPECT_EQ(salvage(file_, salvaged),
            "6 snapshots, 3 per-token rows, 12 training rows, 6 validation rows, nothing lost");
  EXPECT_EQ(check_rows(salvaged, kSteps, kSteps), "");
}

}  // namespace
}  // namespace routescope::data
