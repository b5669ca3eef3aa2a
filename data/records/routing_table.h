// Tables of routing.h5: rows as they are stored, each compared with its checksum.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "data/hdf5/file.h"
#include "data/records/routing_file.h"

namespace routescope::data::routing_format {

/// CRC-32 (that of zlib) over little-endian values one after the other.
class RowChecksum {
 public:
  void add_bytes(std::span<const std::byte> bytes);
  /// A number, or numbers or characters that lie one after the other.
  template <class Values>
  void add(const Values& values) {
    if constexpr (std::is_arithmetic_v<Values>)
      add_bytes(std::as_bytes(std::span(&values, 1)));
    else
      add_bytes(std::as_bytes(std::span(values)));
  }
  std::int64_t value() const { return value_; }

 private:
  std::uint32_t value_ = 0;
};

/// The datasets of a table. The steps are written after the rest and read before it, so their number is the number of
/// complete rows, whatever the moment.
struct Table {
  /// Throws Error if the file lacks the steps or a chunked column.
  Table(const hdf5::File& file, const TableFields& fields);

  void flush_columns();
  /// Completes rows: writes their steps, and hands everything to the operating system. The file's journal takes the
  /// steps too.
  void append_steps(hdf5::File& file, std::span<const std::int64_t> steps);

  const TableFields* fields;
  hdf5::Dataset step;
  std::vector<std::optional<hdf5::Dataset>> columns;  // as in `fields`; nothing where an older file lacks the column
  std::optional<hdf5::Dataset> checksum;              // nothing in a record of version 1.0
  std::vector<std::int64_t> row_values;               // number of values in a row, by column
};

/// The four tables of a record.
struct Tables {
  explicit Tables(const hdf5::File& file);
  std::array<Table*, 4> all() { return {&snapshot, &alpha, &train, &valid}; }
  Table snapshot, alpha, train, valid;
};

/// Rows of a table, by column. A column that the file lacks is filled with missing values; a chunked one is empty.
struct RowBlock {
  std::vector<std::vector<std::byte>> columns;
  std::vector<std::int64_t> stored;     // the checksums in the file; empty: it has none
  std::vector<std::int64_t> checksums;  // of each row with all columns; empty for a chunked table (alpha_checksum())
  std::vector<char> intact;             // whether a row fits its checksum; without checksums: yes
};

/// Reads a table of a record at rest or of one that is being written.
class TableReader {
 public:
  /// `exact_steps`: the steps are known to be right, as in a file read through its journal. Throws Error.
  TableReader(Table table, bool exact_steps);
  const std::vector<std::int64_t>& steps() const { return steps_; }
  const Table& table() const { return table_; }
  /// Rows [begin, begin + count).
  RowBlock read(std::int64_t begin, std::int64_t count);
  /// The last step that is certainly before row `row`, which is damaged; -1 if no row is.
  std::int64_t step_before(std::int64_t row) const;

 private:
  std::vector<std::byte> read_column(std::size_t column, std::int64_t begin, std::int64_t count);

  Table table_;
  bool exact_steps_ = false;
  std::vector<std::int64_t> steps_;
};

/// Row `row` of a column's values, which hold `rows` rows.
std::span<const std::byte> row_of(std::span<const std::byte> values, std::size_t row, std::size_t rows);

/// CRC-32 of a row of a chunked table: the step, then the stored chunks of the column in the order of their
/// coordinates. `each` is called with the coordinates of each chunk's first element, its bytes and its filter mask.
std::int64_t alpha_checksum(
    const hdf5::Dataset& alpha, std::int64_t row, std::int64_t step,
    const std::function<void(const hdf5::Shape&, std::span<const std::byte>, std::uint32_t)>& each = nullptr);

}  // namespace routescope::data::routing_format
