#include "data/hdf5/handle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "data/journal/journal.h"

namespace routescope::data::hdf5 {

void silence() {
  thread_local const bool done = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0 && H5PLset_loading_state(0) >= 0;
  (void)done;
}

std::string last_error() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
        auto& message = *static_cast<std::string*>(out);
        if (message.empty() && entry->desc) message = entry->desc;
        return 0;
      },
      &text);
  // Failures of system calls come as "...: time = ..., errno = 28, error message = 'No space left on device', ...".
  static const std::string mark = "error message = '";
  if (const auto begin = text.find(mark); begin != std::string::npos) {
    const auto from = begin + mark.size();
    text = text.substr(from, text.find('\'', from) - from);
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "unknown HDF5 error" : text;
}

void fail(const std::string& where, const std::string& action) {
  throw Error("{}: {}: {}", where, action, last_error());
}

void fail_writing(FileState& file, const std::string& where, const std::string& action) {
  const std::string reason = file.reason();
  file.give_up(reason);
  throw Error("{}: {}: {}", where, action, reason);
}

std::string FileState::reason() const {
  return *fault != 0 ? std::strerror(*fault) : last_error();
}

std::int64_t FileState::bytes() const {
  void* descriptor = nullptr;
  struct stat status {};
  const bool found =
      H5Fget_vfd_handle(id, H5P_DEFAULT, &descriptor) >= 0 && ::fstat(*static_cast<int*>(descriptor), &status) == 0;
  return std::max<std::int64_t>(known, found ? status.st_size : 0);
}

void FileState::give_up(const std::string& reason) {
  if (id < 0 || !failure.empty()) return;
  failure = reason;
  if (journal) journal->stop();
  silence();
  void* descriptor = nullptr;
  if (H5Fget_vfd_handle(id, H5P_DEFAULT, &descriptor) < 0) return;
  const int sink = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (sink < 0) return;
  ::dup3(sink, *static_cast<int*>(descriptor), O_CLOEXEC);
  ::close(sink);
}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
    file_ = std::move(other.file_);
  }
  return *this;
}

void Handle::reset() {
  if (id_ >= 0) {
    silence();
    // Flushed first: a dataset whose closing fails stays half open, and HDF5 crashes on it at the end of the process.
    const bool may_write = file_ && file_->writable && file_->failure.empty();
    if (may_write && H5Iget_type(id_) == H5I_DATASET && H5Dflush(id_) < 0) file_->give_up(file_->reason());
    if (close_(id_) < 0 && file_) file_->give_up(file_->reason());
  }
  id_ = -1;
}

}  // namespace routescope::data::hdf5
