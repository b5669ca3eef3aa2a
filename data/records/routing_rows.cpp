#include "data/records/routing_rows.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <optional>

#include "data/base/error.h"

namespace routescope::data::routing_format {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Shape;

static_assert(std::endian::native == std::endian::little, "values are stored and checksummed as they are in memory");

void RowChecksum::add_bytes(std::span<const std::byte> bytes) {
  value_ = static_cast<std::uint32_t>(::crc32_z(value_, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

TableReader::TableReader(Table table, bool exact_steps)
    : table_(std::move(table)), exact_steps_(exact_steps), steps_(table_.step.read<std::int64_t>()) {
  for (const Dataset& column : table_.columns) {
    filtered_.push_back(column.filtered() ? 1 : 0);
    std::int64_t bytes = column.element_bytes();
    const Shape shape = column.shape();
    for (std::size_t axis = 1; axis < shape.size(); ++axis) bytes *= shape[axis];
    row_bytes_.push_back(bytes);
  }
}

RowBlock TableReader::read(std::int64_t begin, std::int64_t count) {
  RowBlock out;
  out.columns.resize(table_.columns.size());
  out.intact.assign(static_cast<std::size_t>(count), 1);
  for (std::size_t c = 0; c < out.columns.size(); ++c) {
    Dataset& column = table_.columns[c];
    // The writer wrote the columns before the steps; what was opened before the steps were read may be older, though.
    if (column.rows() < begin + count) column.refresh();
    if (filtered_[c]) continue;
    out.columns[c].resize(static_cast<std::size_t>(count * row_bytes_[c]));
    column.read_row_bytes(begin, count, out.columns[c]);
  }
  if (filtered_[0]) return out;
  const bool checked = table_.has_checksums();
  const std::size_t values = out.columns.size() - (checked ? 1 : 0);
  for (std::size_t row = 0; row < static_cast<std::size_t>(count); ++row) {
    RowChecksum sum;
    sum.add(steps_[static_cast<std::size_t>(begin) + row]);
    for (std::size_t c = 0; c < values; ++c)
      sum.add_bytes(row_of(out.columns[c], row, static_cast<std::size_t>(count)));
    out.checksums.push_back(sum.value());
    if (checked) out.intact[row] = sum.value() == number_at(out.columns.back(), row) ? 1 : 0;
  }
  return out;
}

std::span<const std::byte> row_of(std::span<const std::byte> values, std::size_t row, std::size_t rows) {
  const std::size_t bytes = values.size() / rows;
  return values.subspan(row * bytes, bytes);
}

std::int64_t number_at(std::span<const std::byte> values, std::size_t row) {
  std::int64_t out = 0;
  std::memcpy(&out, values.data() + row * sizeof out, sizeof out);
  return out;
}

std::int64_t TableReader::step_before(std::int64_t row) const {
  if (exact_steps_) return steps_[static_cast<std::size_t>(row)] - 1;
  return row == 0 ? -1 : steps_[static_cast<std::size_t>(row) - 1];
}

std::int64_t alpha_checksum(const Dataset& alpha, std::int64_t row, std::int64_t step,
                            const std::function<void(const Shape&, std::span<const std::byte>, std::uint32_t)>& each) {
  RowChecksum sum;
  sum.add(step);
  const Shape shape = alpha.shape(), chunk = alpha.chunk();
  if (std::find(shape.begin() + 1, shape.end(), 0) != shape.end()) return sum.value();
  Shape at(shape.size(), 0);
  at[0] = row;
  while (at[0] == row) {
    std::uint32_t mask = 0;
    const std::vector<std::byte> bytes = alpha.read_chunk(at, &mask);
    sum.add_bytes(bytes);
    if (each) each(at, bytes, mask);
    // The next chunk: the last axis first.
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      at[axis] += chunk[axis];
      if (axis == 0 || at[axis] < shape[axis]) break;
      at[axis] = 0;
    }
  }
  return sum.value();
}

namespace {

// Whether the file holds a step after the last that its journal knows: the journal was cut, or the writer is just
// between the two. Room for further steps is zeros.
bool is_behind(const std::filesystem::path& file, const File& journaled) {
  Tables tables(journaled);
  for (const Table* table : tables.all()) {
    const std::int64_t rows = table->step.rows(), chunk = table->step.chunk().at(0);
    if (rows % chunk == 0) continue;
    const std::int64_t address = table->step.stored_chunk({rows - rows % chunk}).address;
    std::ifstream in(file, std::ios::binary);
    in.seekg(address + (rows % chunk) * table->step.element_bytes());
    std::int64_t next = 0;
    if (in.read(reinterpret_cast<char*>(&next), sizeof next) && next != 0) return true;
  }
  return false;
}

}  // namespace

void with_record(const std::filesystem::path& file, const std::function<void(const File&, bool)>& body) {
  std::optional<File> journaled;
  bool behind = false;
  try {
    if (std::filesystem::exists(file)) journaled = File::open_with_journal(file);
    behind = journaled && is_behind(file, *journaled);
  } catch (const Error&) {  // a journal of no use
    journaled.reset();
  }
  if (journaled && !behind) return body(*journaled, true);
  try {
    body(File::open(file), false);
  } catch (const Error&) {
    if (!journaled) throw;
    body(*journaled, true);
  }
}

}  // namespace routescope::data::routing_format
