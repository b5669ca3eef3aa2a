// Parts of analysis.h5 (data/parts/row_parts.h): the bytes are the same in whatever order they are joined.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/results/analysis_record.h"

namespace routescope::analysis {

/// A file with one row.
struct RecordPart {
  std::filesystem::path file;
  AnalysisRecord record;
  std::string replaces;  // SHA-256 of the weights of the row of this step that it replaces; empty: of none
};

bool has_parts(const std::filesystem::path& file);
/// The parts of `file`, by name. Throws Error for one that cannot be read.
std::vector<RecordPart> read_parts(const std::filesystem::path& file);

/// Adds rows of parts to a record; parts that were measured otherwise are left out. Of two rows of one step and the
/// same weights the one with an atlas, or more true ablations in it, stays, else the quicker one; of their writers
/// likewise: any order gives the same. Of other weights the one that replaces the other.
void merge_parts(AnalysisRecord& record, const std::vector<RecordPart>& parts);

/// Joins the parts of `file` into it, and removes those that it then holds: unless another program is writing in the
/// same directory, which may have read the file before. A part that was measured otherwise than the file is moved away
/// (data::kept_name()). Without parts nothing is written. Throws Error.
void join_parts(const std::filesystem::path& file);

/// Writes the row as a part and joins it: it is durable when this returns. Throws Error if the file holds what was
/// measured otherwise; the row is then kept in a file that the error names.
void add_row(const std::filesystem::path& file, const ProbeIdentity& identity, const ProbeRow& row,
             const std::string& replaces);

}  // namespace routescope::analysis
