// Shared by the source files of the HDF5 layer: errors out of HDF5's error stack, types, spaces.
#pragma once

#include <string>

#include "data/base/error.h"
#include "data/hdf5/hdf5.h"

namespace routescope::data::hdf5 {

/// HDF5 keeps one error stack per thread and prints it unless told otherwise in each thread.
void silence();
/// The innermost message of the error stack; the system's own message where there is one.
std::string last_error();
/// Throws "WHERE: ACTION: reason".
[[noreturn]] void fail(const std::string& where, const std::string& action);

/// The same after a write, which was the last one to the file.
[[noreturn]] void fail_writing(FileState& file, const std::string& where, const std::string& action);

/// Takes the ownership of an identifier or throws.
inline Handle own(hid_t id, Handle::Close close, const std::string& where, const char* action,
                  std::shared_ptr<FileState> file = nullptr) {
  if (id < 0) fail(where, action);
  return Handle(id, close, std::move(file));
}
inline void check(herr_t status, const std::string& where, const char* action) {
  if (status < 0) fail(where, action);
}
inline void check_write(herr_t status, FileState& file, const std::string& where, const char* action) {
  if (status < 0) fail_writing(file, where, action);
}

/// Throws Error if the texts of a file are damaged in a way that HDF5 would crash over.
void check_texts(const std::filesystem::path& file);

/// The type as stored in a file (little-endian) or held in memory.
Handle file_type(Type type);
Handle memory_type(Type type);

/// A dataspace; empty shape: a scalar. A growing one is unlimited along its first axis, and along axes of length 0,
/// which chunked storage could not have otherwise.
Handle make_space(const Shape& shape, bool growing);
/// The space of `count` rows of a dataset of that shape in memory. Of the same rank as in the file: HDF5 copies runs
/// then, and single elements where the ranks differ.
Handle make_rows_space(Shape shape, std::int64_t count);
/// Selects rows [begin, begin + count) of a file space of that shape.
void select_rows(const Handle& space, const Shape& shape, std::int64_t begin, std::int64_t count,
                 const std::string& at);
std::string to_text(const Shape& shape);

}  // namespace routescope::data::hdf5
