// analysis.h5: probe results, a row per training step (data/formats/analysis.md). The file is small (some ten kilobytes
// a row). It is always written whole, beside its name, and renamed: a program that is stopped at any moment leaves the
// old file or the new one.
#pragma once

#include <filesystem>

#include "analysis/results/analysis_record.h"

namespace routescope::analysis {

/// Throws Error: not such a file, of another version, or damaged.
AnalysisRecord load_record(const std::filesystem::path& file);

/// Also writes what follows from the rows (findings.h), which load_record() does not read. Sets `created` if it is
/// empty. Throws Error; std::logic_error naming a field of a row that has another size than the identity says.
void save_record(AnalysisRecord& record, const std::filesystem::path& file);

/// The record in `file`, or an empty one if there is no such file. Throws Error naming the file and what differs
/// (tokens, settings, sets, model) when its rows were measured otherwise than `identity` says.
AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity);

}  // namespace routescope::analysis
