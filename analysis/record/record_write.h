// Writing analysis.h5 (data/formats/analysis.md): labels and tokens, then every dataset of record_fields.h.
#pragma once

#include "analysis/record/record.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {

/// Everything but findings, into a new file. Throws Error; std::logic_error naming a field of a row that has another
/// size than the identity says.
void write_record(data::hdf5::File& file, const AnalysisRecord& record);

}  // namespace routescope::analysis
