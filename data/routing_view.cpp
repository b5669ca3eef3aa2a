// The reader of routing.h5, at any moment of a run.
#include <thread>

#include "data/error.h"
#include "data/routing_format.h"
#include "data/routing_record.h"

namespace routescope {

namespace {

using hdf5::Dataset;
using hdf5::File;
using routing_format::Table;

// The first `rows` rows of each column. The writer wrote them before the steps; what was read before the steps were may
// be older, though, so it is read anew.
template <class T>
std::vector<T> column(Dataset& data, std::int64_t rows) {
  if (data.rows() < rows) data.refresh();
  if (data.rows() < rows) throw Error("{}: {} rows, expected at least {}", data.where(), data.rows(), rows);
  return data.read_rows<T>(0, rows);
}

// Row `row` of values that hold `rows` rows.
std::vector<float> row_of(const std::vector<float>& values, std::size_t row, std::size_t rows) {
  const std::size_t width = values.size() / rows;
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

std::vector<RoutingSnapshot> read_snapshots(const File& file) {
  Table table = Table::open(file, "/step", routing_format::snapshot_columns);
  const auto steps = table.step.read<std::int64_t>();
  const auto rows = static_cast<std::int64_t>(steps.size());
  const auto tokens_seen = column<std::int64_t>(table.columns[0], rows);
  std::vector<std::vector<float>> values;
  for (std::size_t c = 1; c < table.columns.size(); ++c) values.push_back(column<float>(table.columns[c], rows));
  std::vector<RoutingSnapshot> out(steps.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto row = [&](std::size_t c) { return row_of(values[c], i, out.size()); };
    out[i] = {steps[i], tokens_seen[i], row(0), row(1), row(2), row(3), row(4), row(5), row(6)};
  }
  return out;
}

std::vector<TrainRow> read_train(const File& file) {
  Table table = Table::open(file, "/train/step", routing_format::train_columns);
  const auto steps = table.step.read<std::int64_t>();
  const auto rows = static_cast<std::int64_t>(steps.size());
  const auto tokens_seen = column<std::int64_t>(table.columns[0], rows);
  std::vector<std::vector<double>> values;
  for (std::size_t c = 1; c < table.columns.size(); ++c) values.push_back(column<double>(table.columns[c], rows));
  std::vector<TrainRow> out(steps.size());
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = {steps[i], tokens_seen[i], values[0][i], values[1][i], values[2][i], values[3][i], values[4][i]};
  return out;
}

std::vector<ValidRow> read_valid(const File& file) {
  Table table = Table::open(file, "/valid/step", routing_format::valid_columns);
  const auto steps = table.step.read<std::int64_t>();
  const auto loss = column<double>(table.columns[0], static_cast<std::int64_t>(steps.size()));
  std::vector<ValidRow> out(steps.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = {steps[i], loss[i]};
  return out;
}

}  // namespace

RoutingRecordView RoutingRecordView::load(const std::filesystem::path& name) {
  const File file = File::open(name);
  RoutingRecordView out;
  out.info = routing_format::read_info(file);
  out.snapshots = read_snapshots(file);
  out.alpha_steps = file.read<std::int64_t>("/alpha_step");
  out.train = read_train(file);
  out.valid = read_valid(file);
  return out;
}

}  // namespace routescope
