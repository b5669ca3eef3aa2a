// Identifiers of the HDF5 library that close themselves, and errors made from its error stack.
#pragma once

#include <hdf5.h>

#include <memory>
#include <string>
#include <utility>

#include "data/base/error.h"

namespace routescope::data {
class Journal;
}

namespace routescope::data::hdf5 {

/// The state that all objects of one file share.
struct FileState {
  std::string name;  // for errors
  hid_t id = -1;     // -1: closed
  bool writable = false;
  std::string failure;                         // why a write failed; empty: none did
  std::shared_ptr<Journal> journal = nullptr;  // of a file that has one and is being written

  /// The length of the file now; at least `known` (a journal may know of more).
  std::int64_t bytes() const;
  std::int64_t known = 0;
  /// The errno of the first write that failed (driver.h); 0: none did.
  std::shared_ptr<int> fault = std::make_shared<int>(0);

  /// Why something failed: the first write that failed, else last_error().
  std::string reason() const;

  /// After a failed write nothing more reaches the file: it stays as the last successful write left it, and closing
  /// works. (HDF5 would repeat the write of everything that it still holds, and crash at the end of the process.)
  void give_up(const std::string& reason);
};

/// Owns one HDF5 identifier of any kind. Closing a dataset can write it; if that write fails, FileState notes it.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close, std::shared_ptr<FileState> file = nullptr)
      : id_(id), close_(close), file_(std::move(file)) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_), file_(std::move(other.file_)) {}
  Handle& operator=(Handle&& other) noexcept;
  void reset();
  hid_t id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
  std::shared_ptr<FileState> file_;
};

/// Stops HDF5 from printing its error stack, of which there is one per thread, and from loading plug-ins. Every
/// function of this room that calls HDF5 calls this first.
void silence();
/// The innermost message of the error stack; the system's own message where there is one.
std::string last_error();
/// Throws Error "WHERE: ACTION: reason".
[[noreturn]] void fail(const std::string& where, const std::string& action);
/// The same for a failed write; gives the file up.
[[noreturn]] void fail_writing(FileState& file, const std::string& where, const std::string& action);

/// Takes the ownership of an identifier. Throws Error if it is none.
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

}  // namespace routescope::data::hdf5
