// Rows that several programs measure for one analysis.h5 at a time, on one machine or on several that share a file
// system. Each row is first a file of its own beside analysis.h5, a part. Whoever comes next joins the parts; the bytes
// are the same in whatever order. No lock is needed, and nothing is lost to a kill (data/formats/analysis.md, "Parts").
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
/// same weights the one with an atlas, or more true ablations in it, stays, else the quicker one: any order gives the
/// same. Of other weights the one that replaces the other.
void merge_parts(AnalysisRecord& record, const std::vector<RecordPart>& parts);

/// Joins the parts of `file` into it, and removes those that it then holds: unless another program is writing in the
/// same directory, which may have read the file before. A part that was measured otherwise than the file is moved away
/// (kept_name()). Without parts nothing is written. Throws Error.
void join_parts(const std::filesystem::path& file);

/// Writes the row as a part and joins it: it is durable when this returns. Throws Error if the file holds what was
/// measured otherwise; the row is then kept in a file that the error names.
void add_row(const std::filesystem::path& file, const ProbeIdentity& identity, const ProbeRow& row,
             const std::string& replaces);

/// Where a part goes that was measured otherwise than the file that it is a part of.
std::filesystem::path kept_name(const std::filesystem::path& part);

}  // namespace routescope::analysis
