// analysis.h5: probe results, a row per training step (data/formats/analysis.md). The file is small (some ten kilobytes
// a row). It is always written whole, beside its name, and renamed: a program that is stopped at any moment leaves the
// old file or the new one. New rows come as parts (record_parts.h).
#pragma once

#include <filesystem>
#include <string>

#include "analysis/results/analysis_record.h"

namespace routescope::analysis {

/// Whether there is a record under this name: the file, or a part of it (record_parts.h).
bool record_exists(const std::filesystem::path& file);

/// With the rows of its parts, at any moment. Throws Error: not such a file, of another version, or damaged.
AnalysisRecord load_record(const std::filesystem::path& file);

/// Writes a new file `path`, and what follows from the rows (findings.h), which load_record() does not read. Throws
/// Error; std::logic_error naming a field of a row that has another size than the identity says.
void write_record_file(const AnalysisRecord& record, const std::filesystem::path& path);

/// The same, complete or not at all. Sets `created` if it is empty. Parts stay as they are. Throws Error;
/// std::logic_error naming a field of a row that has another size than the identity says.
void save_record(AnalysisRecord& record, const std::filesystem::path& file);

/// The record in `file`, or an empty one if there is no such file. Throws Error naming the file and what differs
/// (tokens, settings, sets, model) when its rows were measured otherwise than `identity` says.
AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity);

/// What is measured otherwise (tokens, settings, sets, model), as "WHAT: found ..., expected ..."; empty if nothing is.
std::string difference_of(const ProbeIdentity& found, const ProbeIdentity& expected);

/// UTC, ISO 8601.
std::string now();

}  // namespace routescope::analysis
