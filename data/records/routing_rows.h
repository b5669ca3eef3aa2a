// Rows of routing.h5 as they are stored, each held against its checksum.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "data/hdf5/hdf5.h"
#include "data/records/routing_format.h"

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

/// Rows of a table. Columns in the order of Table::columns; those that filters changed are empty here.
struct RowBlock {
  std::vector<std::vector<std::byte>> columns;
  std::vector<std::int64_t> checksums;  // of each row; not of those of /alpha (alpha_checksum())
  std::vector<char> intact;             // whether they are what the record says. Version 1.0 had none: taken as intact
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
  /// The last step that is certainly before row `row`, which is damaged; -1 if that is none.
  std::int64_t step_before(std::int64_t row) const;

 private:
  Table table_;
  bool exact_steps_ = false;
  std::vector<std::int64_t> steps_;
  std::vector<char> filtered_;           // per column
  std::vector<std::int64_t> row_bytes_;  // per column
};

/// Row `row` of a column's values, which hold `rows` rows; the same of a column of 64-bit integers.
std::span<const std::byte> row_of(std::span<const std::byte> values, std::size_t row, std::size_t rows);
std::int64_t number_at(std::span<const std::byte> values, std::size_t row);

/// CRC-32 of a row of the per-token table: the step, then the stored chunks of /alpha in the order of their
/// coordinates. `each` sees every chunk with the coordinates of its first element and its filter mask.
std::int64_t alpha_checksum(
    const hdf5::Dataset& alpha, std::int64_t row, std::int64_t step,
    const std::function<void(const hdf5::Shape&, std::span<const std::byte>, std::uint32_t)>& each = nullptr);

/// Calls `body` with the record, opened: through its journal, where it has one that is up to date, which is right
/// whatever happened to the file's structure. Otherwise as the file itself is and, if that throws Error, through the
/// journal that is not up to date.
void with_record(const std::filesystem::path& file, const std::function<void(const hdf5::File&, bool journaled)>& body);

}  // namespace routescope::data::routing_format
