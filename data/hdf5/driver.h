// How HDF5 reaches files that have a journal (data/journal.h): a file driver of ours below the library.
#pragma once

#include <hdf5.h>

#include <memory>

#include "data/journal/journal.h"

namespace routescope::data::hdf5 {

/// Makes files opened with `access` go through the driver. With `writer`, what describes the file (all but the values
/// of datasets, and these too while Journal::values_too) goes to that journal before it goes to the
/// file. With `overlay`, the file is read as the journal says it is; opening fails with the message not_this_file where
/// the journal belongs to another file. Throws Error.
struct DriverFile {
  std::shared_ptr<Journal> writer;
  std::shared_ptr<const JournalContent> overlay;
};
void use_driver(hid_t access, const DriverFile& file);  // `file` must outlive the opening
inline constexpr const char* not_this_file = "the journal belongs to another file";

}  // namespace routescope::data::hdf5
