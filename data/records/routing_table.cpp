#include "data/records/routing_table.h"

#include <zlib.h>

#include <algorithm>
#include <bit>

#include "data/base/error.h"
#include "data/hdf5/chunks.h"
#include "data/hdf5/guard.h"

namespace routescope::data::routing_format {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Shape;

static_assert(std::endian::native == std::endian::little, "values are stored and checksummed as they are in memory");

void RowChecksum::add_bytes(std::span<const std::byte> bytes) {
  value_ = static_cast<std::uint32_t>(::crc32_z(value_, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

namespace {

// A column of a table, whose rows have the shape that the file's axes say. The number of rows is that of the steps, or
// larger: a writer adds the step last.
Dataset column_of(const File& file, const RecordField& field, const AxisLengths& lengths) {
  Dataset out = file.dataset(field.path);
  Shape shape = shape_of(field, lengths);
  shape.insert(shape.begin(), out.rows());
  expect_field(out, field, shape);
  return out;
}

AxisLengths stored_lengths(const File& file) {
  AxisLengths out;
  for (const char* axis : {"read", "source", "seq", "pos", "d"}) {
    const Dataset data = file.dataset(fmt::format("/{}", axis));
    if (data.shape().size() != 1)
      throw Error("{}: found shape {}, expected one axis", data.where(), hdf5::to_text(data.shape()));
    out[axis] = data.rows();
  }
  return out;
}

}  // namespace

Table::Table(const File& file, const TableFields& described)
    : fields(&described), step(column_of(file, described.step, {})) {
  const AxisLengths lengths = stored_lengths(file);
  for (const RecordField& field : described.columns) {
    const bool there = described.chunked || file.exists(field.path);
    columns.push_back(there ? std::optional(column_of(file, field, lengths)) : std::nullopt);
    row_values.push_back(row_size(field, lengths));
  }
  if (file.exists(described.checksum.path)) checksum = column_of(file, described.checksum, {});
}

void Table::flush_columns() {
  for (std::optional<Dataset>& column : columns)
    if (column) column->flush();
  if (checksum) checksum->flush();
}

void Table::append_steps(File& file, std::span<const std::int64_t> steps) {
  flush_columns();
  file.journal_values(true);
  step.append(steps, static_cast<std::int64_t>(steps.size()));
  step.flush();
  file.journal_values(false);
}

Tables::Tables(const File& file)
    : snapshot(file, table_fields()[0]),
      alpha(file, table_fields()[1]),
      train(file, table_fields()[2]),
      valid(file, table_fields()[3]) {}

TableReader::TableReader(Table table, bool exact_steps)
    : table_(std::move(table)), exact_steps_(exact_steps), steps_(table_.step.read<std::int64_t>()) {}

std::vector<std::byte> TableReader::read_column(std::size_t c, std::int64_t begin, std::int64_t count) {
  const std::int64_t values = hdf5::multiplied(count, table_.row_values[c], table_.fields->columns[c].path);
  if (!table_.columns[c]) {
    hdf5::require_room(values, table_.step.file_state(), table_.step.where());
    const hdf5::Type type = table_.fields->columns[c].type;
    return to_bytes(type, std::vector<double>(static_cast<std::size_t>(values), missing_value(type)));
  }
  Dataset& column = *table_.columns[c];
  // The writer wrote the columns before the steps, but this dataset may have been opened before that.
  if (column.rows() < begin + count) column.refresh();
  if (table_.fields->chunked) return {};
  std::vector<std::byte> out(column.room_for(count) * static_cast<std::size_t>(element_bytes(column)));
  read_row_bytes(column, begin, count, out);
  return out;
}

RowBlock TableReader::read(std::int64_t begin, std::int64_t count) {
  RowBlock out;
  for (std::size_t c = 0; c < table_.columns.size(); ++c) out.columns.push_back(read_column(c, begin, count));
  if (table_.checksum) {
    if (table_.checksum->rows() < begin + count) table_.checksum->refresh();
    out.stored = table_.checksum->read_rows<std::int64_t>(begin, count);
  }
  const auto rows = static_cast<std::size_t>(count);
  out.intact.assign(rows, 1);
  if (table_.fields->chunked) return out;
  for (std::size_t row = 0; row < rows; ++row) {
    RowChecksum all, in_file;
    for (RowChecksum* sum : {&all, &in_file}) sum->add(steps_[static_cast<std::size_t>(begin) + row]);
    for (std::size_t c = 0; c < out.columns.size(); ++c) {
      const auto bytes = row_of(out.columns[c], row, rows);
      all.add_bytes(bytes);
      if (table_.columns[c]) in_file.add_bytes(bytes);
    }
    out.checksums.push_back(all.value());
    if (!out.stored.empty()) out.intact[row] = in_file.value() == out.stored[row] ? 1 : 0;
  }
  return out;
}

std::span<const std::byte> row_of(std::span<const std::byte> values, std::size_t row, std::size_t rows) {
  const std::size_t bytes = values.size() / rows;
  return values.subspan(row * bytes, bytes);
}

std::int64_t TableReader::step_before(std::int64_t row) const {
  if (exact_steps_) return steps_[static_cast<std::size_t>(row)] - 1;
  return row == 0 ? -1 : steps_[static_cast<std::size_t>(row) - 1];
}

std::int64_t alpha_checksum(const Dataset& alpha, std::int64_t row, std::int64_t step,
                            const std::function<void(const Shape&, std::span<const std::byte>, std::uint32_t)>& each) {
  RowChecksum sum;
  sum.add(step);
  const Shape shape = alpha.shape(), chunk = chunk_shape(alpha);
  if (chunk.empty()) throw Error("{}: is not stored in chunks", alpha.where());
  if (std::find(shape.begin() + 1, shape.end(), 0) != shape.end()) return sum.value();
  Shape at(shape.size(), 0);
  at[0] = row;
  while (at[0] == row) {
    std::uint32_t mask = 0;
    const std::vector<std::byte> bytes = read_chunk(alpha, at, &mask);
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

}  // namespace routescope::data::routing_format
