// The file driver of every file. It does the same as HDF5's own driver for POSIX files, "sec2", and beside that it
// reads and writes files with their journal (data/journal/journal.h), keeps the errno of the first system call that
// failed, and notices a file that became shorter while it was read.
#pragma once

#include <hdf5.h>

#include <memory>

#include "data/journal/journal.h"

namespace routescope::data::hdf5 {

/// With `writer`, the structure of the file (all but the values of datasets, and these too while Journal::values_too)
/// is written to that journal before it is written to the file. With `overlay`, the file is read with that journal laid
/// over it; opening fails with the message not_this_file if the journal belongs to another file.
struct DriverFile {
  std::shared_ptr<Journal> writer = nullptr;
  std::shared_ptr<const JournalContent> overlay = nullptr;
  std::shared_ptr<int> fault = nullptr;  // FileState::fault
};
/// Sets the driver of files that are opened with `access`. `file` must live until they are open. Throws Error.
void use_driver(hid_t access, const DriverFile& file);
inline constexpr const char* not_this_file = "the journal belongs to another file";

}  // namespace routescope::data::hdf5
