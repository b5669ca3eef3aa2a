// The reader of routing.h5, at any moment of a run.
#include <algorithm>
#include <cstring>

#include "data/base/error.h"
#include "data/records/routing_record.h"
#include "data/records/routing_rows.h"

namespace routescope::data {

namespace {

using hdf5::File;
using routing_format::Table;
using routing_format::TableReader;

// A table read whole; every row must be intact.
class WholeTable {
 public:
  WholeTable(const File& file, bool journaled, const std::string& step, const std::vector<std::string>& columns)
      : reader_(Table::open(file, step, columns), journaled), rows_(reader_.steps().size()) {
    block_ = reader_.read(0, static_cast<std::int64_t>(rows_));
    for (std::size_t row = 0; row < rows_; ++row) {
      if (block_.intact[row] != 0) continue;
      throw Error("{}: row {} does not fit its checksum: rows of steps after {} are damaged (routescope-data salvage)",
                  reader_.table().columns.back().where(), row,
                  std::max<std::int64_t>(reader_.step_before(static_cast<std::int64_t>(row)), 0));
    }
  }

  std::size_t rows() const { return rows_; }
  std::int64_t step(std::size_t row) const { return reader_.steps()[row]; }
  template <class T>
  std::vector<T> row(std::size_t column, std::size_t row) const {
    const auto bytes = routing_format::row_of(block_.columns[column], row, rows_);
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  template <class T>
  T value(std::size_t column, std::size_t row) const {
    return this->row<T>(column, row).at(0);
  }

 private:
  TableReader reader_;
  std::size_t rows_ = 0;
  routing_format::RowBlock block_;
};

std::vector<RoutingSnapshot> read_snapshots(const File& file, bool journaled) {
  const WholeTable table(file, journaled, "/step", routing_format::snapshot_columns);
  std::vector<RoutingSnapshot> out(table.rows());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto row = [&](std::size_t column) { return table.row<float>(column, i); };
    out[i] = {table.step(i), table.value<std::int64_t>(0, i), row(1), row(2), row(3), row(4), row(5), row(6), row(7)};
  }
  return out;
}

std::vector<TrainRow> read_train(const File& file, bool journaled) {
  const WholeTable table(file, journaled, "/train/step", routing_format::train_columns);
  std::vector<TrainRow> out(table.rows());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto value = [&](std::size_t column) { return table.value<double>(column, i); };
    out[i] = {table.step(i), table.value<std::int64_t>(0, i), value(1), value(2), value(3), value(4), value(5)};
  }
  return out;
}

std::vector<ValidRow> read_valid(const File& file, bool journaled) {
  const WholeTable table(file, journaled, "/valid/step", routing_format::valid_columns);
  std::vector<ValidRow> out(table.rows());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = {table.step(i), table.value<double>(0, i)};
  return out;
}

}  // namespace

RoutingRecordView RoutingRecordView::load(const std::filesystem::path& name) {
  RoutingRecordView out;
  routing_format::with_record(name, [&](const File& file, bool journaled) {
    out.info = routing_format::read_info(file);
    out.snapshots = read_snapshots(file, journaled);
    out.alpha_steps = file.read<std::int64_t>("/alpha_step");
    out.train = read_train(file, journaled);
    out.valid = read_valid(file, journaled);
  });
  return out;
}

std::vector<float> RoutingRecordView::load_alpha(const std::filesystem::path& name, std::int64_t index) {
  std::vector<float> out;
  routing_format::with_record(name,
                              [&](const File& file, bool) { out = file.dataset("/alpha").read_rows<float>(index, 1); });
  return out;
}

}  // namespace routescope::data
