// Reading analysis.h5: everything that record_write.h wrote. Findings are not read: they follow from the rows.
#pragma once

#include <filesystem>

#include "analysis/record/record.h"

namespace routescope::analysis {

/// Datasets of rows that an older file lacks read as not measured. Throws Error: not such a file, of another version,
/// or damaged.
AnalysisRecord read_record(const std::filesystem::path& file);

}  // namespace routescope::analysis
