// Reading analysis.h5: everything that record_write.h wrote. Findings are not read: they follow from the rows.
#pragma once

#include "analysis/record/record.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {

/// Datasets of rows that an older file lacks read as not measured. Throws Error: not such a file, of another version,
/// or damaged.
AnalysisRecord read_record(const data::hdf5::File& file);

}  // namespace routescope::analysis
