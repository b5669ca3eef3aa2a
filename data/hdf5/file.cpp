#include "data/hdf5/file.h"

#include <chrono>
#include <thread>

#include "data/base/files.h"
#include "data/hdf5/driver.h"
#include "data/hdf5/guard.h"
#include "data/journal/journal.h"

namespace routescope::data::hdf5 {

namespace {

Handle file_access(const std::string& name) {
  Handle access = own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, name, "cannot make a property list");
  // The file is closed when its handle is, whatever else is still open.
  check(H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG), name, "cannot set a property");
  // Some parallel file systems have no flock(). Concurrent access does not depend on locks: SWMR makes it safe.
  check(H5Pset_file_locking(access.id(), true, true), name, "cannot set a property");
  // A SWMR reader that meets half-written metadata waits 1, 2, 4, ... ns and tries again, by default 100 times. If a
  // killed writer left them, that never ends. 30 times are 2 s in all.
  constexpr unsigned kReadAttempts = 30;
  check(H5Pset_metadata_read_attempts(access.id(), kReadAttempts), name, "cannot set a property");
  return access;
}

// With a journal: for SWMR.
std::shared_ptr<FileState> create_file(const std::filesystem::path& file, const std::shared_ptr<Journal>& journal) {
  silence();
  const bool swmr = journal != nullptr;
  const auto state = std::make_shared<FileState>(FileState{final_name(file).string(), -1, true, "", journal});
  const DriverFile driver{.writer = journal, .fault = state->fault};
  const std::string& name = state->name;
  Handle access = file_access(name);
  check(H5Pset_libver_bounds(access.id(), swmr ? H5F_LIBVER_V110 : H5F_LIBVER_V18, H5F_LIBVER_V110), name,
        "cannot set a property");
  use_driver(access.id(), driver);
  Handle creation = own(H5Pcreate(H5P_FILE_CREATE), H5Pclose, name, "cannot make a property list");
  check(H5Pset_link_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED), name,
        "cannot set a property");
  // Equal content makes equal bytes.
  check(H5Pset_obj_track_times(creation.id(), false), name, "cannot set a property");
  state->id = H5Fcreate(file.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  if (state->id < 0) throw Error("{}: cannot create: {}", name, state->reason());
  return state;
}

}  // namespace

File::File(std::shared_ptr<FileState> state) {
  file_ = std::move(state);
  path_ = "/";
  handle_ = own(H5Gopen2(file_->id, "/", H5P_DEFAULT), H5Gclose, file_->name, "cannot open the root group");
}

File::~File() {
  close_quietly();
}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    close_quietly();
    Group::operator=(std::move(other));
  }
  return *this;
}

void File::close_quietly() noexcept {
  if (!file_ || file_->id < 0) return;
  silence();
  handle_.reset();
  if (H5Fflush(file_->id, H5F_SCOPE_LOCAL) < 0) file_->give_up(file_->reason());
  H5Fclose(std::exchange(file_->id, -1));
}

void File::close() {
  close_quietly();
  if (file_ && !file_->failure.empty()) throw Error("{}: cannot write: {}", file_->name, file_->failure);
}

File File::create(const std::filesystem::path& file) {
  return File(create_file(file, nullptr));
}

File File::create_for_swmr(const std::filesystem::path& file) {
  return File(create_file(file, std::make_shared<Journal>()));
}

File File::open(const std::filesystem::path& file) {
  silence();
  const std::string name = file.string();
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) throw Error("{}: no such file", name);
  require_regular(file);
  check_texts(file);
  const Handle access = file_access(name);
  const DriverFile driver;
  use_driver(access.id(), driver);
  // First without SWMR, which old formats need, then as a SWMR reader. Between the two a writer may close the file or
  // put another in its place, so both are tried several times. On a damaged file each look takes 2 s.
  std::string reason;
  constexpr auto patience = std::chrono::seconds(1);
  const auto begin = std::chrono::steady_clock::now();
  for (int attempt = 0; attempt < 20 && std::chrono::steady_clock::now() - begin < patience; ++attempt) {
    for (const unsigned flags : {H5F_ACC_RDONLY, H5F_ACC_RDONLY | H5F_ACC_SWMR_READ}) {
      const hid_t opened = H5Fopen(name.c_str(), flags, access.id());
      if (opened >= 0) return File(std::make_shared<FileState>(FileState{name, opened, false, ""}));
      reason = last_error();
    }
    if (reason.find("signature not found") != std::string::npos) throw Error("{}: not an HDF5 file", name);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw Error("{}: cannot open: {}", name, reason);
}

std::optional<File> File::open_with_journal(const std::filesystem::path& file) {
  silence();
  const std::string name = file.string();
  const Handle access = file_access(name);
  std::string reason;
  // A resumed run replaces first the file and then its journal.
  for (int attempt = 0; attempt < 20; ++attempt) {
    auto journal = read_journal(file);
    if (!journal) return std::nullopt;
    const DriverFile driver{.overlay = std::make_shared<const JournalContent>(std::move(*journal))};
    use_driver(access.id(), driver);
    for (const unsigned flags : {H5F_ACC_RDONLY, H5F_ACC_RDONLY | H5F_ACC_SWMR_READ}) {
      const hid_t opened = H5Fopen(name.c_str(), flags, access.id());
      if (opened >= 0) {
        auto state = std::make_shared<FileState>(FileState{name, opened, false, ""});
        state->known = driver.overlay->image.end();
        return File(std::move(state));
      }
      reason = last_error();
    }
    if (reason.find(not_this_file) == std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (reason.find(not_this_file) != std::string::npos) return std::nullopt;
  throw Error("{}: cannot open: {}", name, reason);
}

File File::open_writable(const std::filesystem::path& file) {
  silence();
  const std::string name = file.string();
  const Handle access = file_access(name);
  auto state = std::make_shared<FileState>(FileState{name, -1, true, ""});
  const DriverFile driver{.fault = state->fault};
  use_driver(access.id(), driver);
  state->id = H5Fopen(name.c_str(), H5F_ACC_RDWR, access.id());
  if (state->id < 0) fail(name, "cannot open for writing");
  return File(std::move(state));
}

void File::start_swmr() {
  silence();
  check_write(H5Fstart_swmr_write(file_->id), *file_, file_->name, "cannot start writing in SWMR mode");
}

void File::journal_values(bool on) {
  file_->journal->values_too = on;
}

void File::publish_journal(const std::filesystem::path& journal, const JournalMark& mark) {
  file_->journal->publish(journal, mark);
}

void File::sync(const std::filesystem::path& file) {
  sync_path(file);
  if (file_->journal) file_->journal->compact();
}

void File::flush() {
  silence();
  check_write(H5Fflush(file_->id, H5F_SCOPE_LOCAL), *file_, file_->name, "cannot write");
}

}  // namespace routescope::data::hdf5
