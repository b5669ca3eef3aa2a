// The documents that probe sequences come from, as HDF5 files hold them: routing.h5, analysis.h5, study.h5, and files
// of tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "data/hdf5/dataset.h"
#include "data/hdf5/group.h"
#include "data/records/record_field.h"

namespace routescope::data {

/// `/probe_document` [seq].
const RecordField& probe_document_field();

/// What a file holds of `sequences` sequences: -1 for each if their documents are not known (empty).
std::vector<std::int64_t> stored_documents(const std::vector<std::int64_t>& documents, std::int64_t sequences);

/// Back from a dataset [sequences] of any integer type. Throws Error for another shape or type, or a number below 0
/// where not all are -1.
std::vector<std::int64_t> read_documents(const hdf5::Dataset& dataset, std::int64_t sequences);

}  // namespace routescope::data
