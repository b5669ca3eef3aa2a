// routing.h5 as a file: its fixed part, its tables as they are made, and how it is opened (data/formats/routing.md).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/hdf5/file.h"
#include "data/journal/journal.h"
#include "data/records/record_field.h"
#include "data/records/routing_rows.h"

namespace routescope::data::routing_format {

inline constexpr const char* filetype = "routescope routing";

/// Root attribute of a record that salvage() made: the number of rows that were lost.
inline constexpr const char* salvaged = "salvaged_rows_lost";

/// A table has a row for each of its steps. The last name of the path of `step` is the name of the axis of rows.
struct TableFields {
  RecordField step;
  std::vector<RecordField> columns;
  RecordField checksum;  // CRC-32 of a row
  bool chunked = false;  // one compressed column that is copied chunk by chunk: /alpha

  std::string axis() const { return step.path.substr(step.path.rfind('/') + 1); }
};

/// The tables of a record in the order in which they are made: snapshots, weights by token, training, validation.
const std::array<TableFields, 4>& table_fields();

AxisLengths axis_lengths(const RoutingRecordInfo& info);

/// Everything but rows, with the root attributes, flushed; the file's journal takes no more values from then on.
/// `created` empty: now. Returns what ties the journal to the file.
JournalMark create(hdf5::File& file, const RoutingRecordInfo& info, const std::string& created);
/// The fixed part again. Throws Error if the file is no routing record, or one of another major version.
RoutingRecordInfo read_info(const hdf5::File& file);

/// Calls `body` with the record, opened. If the record has a journal that is up to date, the record is read through it:
/// that is right whatever happened to the file's structure. Otherwise the file itself is read and, if that throws
/// Error, the journal that is not up to date.
void with_record(const std::filesystem::path& file, const std::function<void(const hdf5::File&, bool journaled)>& body);

}  // namespace routescope::data::routing_format
