// Opening, atomic writing, syncing, reading and hashing of files.
#include "data/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "data/base/error.h"
#include "data/base/paths.h"
#include "data/base/sha256.h"

namespace routescope::data {

namespace {

namespace fs = std::filesystem;

// A directory of this name holds what a process is writing.
const std::string place_prefix = ".routescope-partial-";

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : ".";
}

bool is_place(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with(place_prefix) && name.size() == place_prefix.size() + std::strlen("XXXXXX");
}

std::string kind_of(mode_t mode) {
  if (S_ISREG(mode)) return "a regular file";
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO (or pipe, as of <(command))";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

/// The directory, held by a lock as long as the result lives. Invalid if it is gone, or held in another way.
FileDescriptor lock_place(const fs::path& place, int how) {
  FileDescriptor out(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (out.get() < 0) return out;
  struct stat status {};
  // A file system without locks: nobody can take the place away then.
  const bool held = ::flock(out.get(), how | LOCK_NB) == 0 || (how == LOCK_SH && errno != EWOULDBLOCK);
  return held && ::fstat(out.get(), &status) == 0 && status.st_nlink > 0 ? std::move(out) : FileDescriptor();
}

void remove_abandoned(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
    if (is_place(entry->path())) found.push_back(entry->path());
  for (const fs::path& place : found)
    if (const FileDescriptor lock = lock_place(place, LOCK_EX); lock.get() >= 0) fs::remove_all(place, error);
}

void write_all(int descriptor, const fs::path& file, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(descriptor, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("{}: cannot write: {}", file.string(), std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
}

template <class Consume>
void read_pieces(const fs::path& file, Consume consume) {
  const FileDescriptor in = open_regular(file);
  std::vector<char> piece(1 << 20);
  while (true) {
    const ssize_t count = ::read(in.get(), piece.data(), piece.size());
    if (count == 0) return;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("{}: cannot read: {}", file.string(), std::strerror(errno));
    consume(piece.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

bool has_no_locks(int reason) {
  return reason == ENOSYS || reason == ENOLCK || reason == EOPNOTSUPP;
}

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileDescriptor open_regular(const fs::path& file) {
  FileDescriptor out(::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  const int reason = errno;
  struct stat status {};
  const bool known = (out.get() >= 0 ? ::fstat(out.get(), &status) : ::stat(file.c_str(), &status)) == 0;
  if (known && !S_ISREG(status.st_mode))
    throw Error("{}: found {}, expected a regular file", file.string(), kind_of(status.st_mode));
  if (out.get() < 0) throw Error("{}: cannot open: {}", file.string(), std::strerror(reason));
  return out;
}

void require_regular(const fs::path& file) {
  open_regular(file);
}

void require_replaceable(const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw Error("{}: found {}, expected a regular file to replace, or nothing", file.string(), kind_of(status.st_mode));
}

Unfinished::Unfinished(const fs::path& target) : target_(follow_links(target)) {
  constexpr int most_attempts = 100;
  require_replaceable(target);  // /dev/stdout is a link to a pipe without a name
  remove_abandoned(parent_of(target_));
  for (int attempt = 0; attempt < most_attempts; ++attempt) {
    std::string name = (target_.parent_path() / (place_prefix + "XXXXXX")).string();
    if (!::mkdtemp(name.data())) throw Error("{}: cannot create: {}", target.string(), std::strerror(errno));
    place_ = name;
    path_ = place_ / target_.filename();
    lock_ = lock_place(place_, LOCK_SH);
    if (lock_.get() >= 0) return;  // else another process took it for abandoned
  }
  throw Error("{}: cannot create: other processes remove {}", target.string(), place_.string());
}

Unfinished::~Unfinished() {
  std::error_code ignored;
  fs::remove_all(place_, ignored);
}

bool Unfinished::has_others() const {
  constexpr std::int64_t day = 86400;
  struct stat own {};
  struct stat other {};
  ::stat(place_.c_str(), &own);
  std::error_code error;
  for (fs::directory_iterator entry(parent_of(target_), error), end; !error && entry != end; entry.increment(error)) {
    if (!is_place(entry->path()) || entry->path().filename() == place_.filename()) continue;
    if (lock_place(entry->path(), LOCK_EX).get() >= 0) continue;
    if (::stat(entry->path().c_str(), &other) == 0 && other.st_mtime > own.st_mtime - day) return true;
  }
  return static_cast<bool>(error);
}

void Unfinished::publish() {
  sync_path(path_);
  struct stat old {};
  if (fs::is_regular_file(path_) && ::stat(target_.c_str(), &old) == 0) {
    require_replaceable(target_);
    ::chmod(path_.c_str(), old.st_mode & 07777);
  }
  if (std::rename(path_.c_str(), target_.c_str()) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) throw Error("{}: another process made it meanwhile", target_.string());
    throw Error("{}: cannot rename to it: {}", target_.string(), std::strerror(errno));
  }
  sync_path(parent_of(target_));
}

fs::path final_name(const fs::path& file) {
  return is_place(file.parent_path()) ? file.parent_path().parent_path() / file.filename() : file;
}

void write_atomically(const fs::path& file, const std::function<void(const fs::path&)>& write) {
  Unfinished out(file);
  write(out.path());
  out.publish();
}

void write_text_atomically(const fs::path& file, const std::string& text) {
  write_atomically(file, [&](const fs::path& partial) {
    const FileDescriptor out(::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (out.get() < 0) throw Error("{}: cannot create: {}", file.string(), std::strerror(errno));
    write_all(out.get(), file, text);
  });
}

void write_directory_atomically(const fs::path& directory, const std::function<void(const fs::path&)>& fill) {
  const fs::path target = (fs::absolute(directory) / "").lexically_normal().parent_path();
  std::error_code error;
  if (fs::exists(target, error)) throw Error("{}: exists already, expected a new directory", directory.string());
  fs::create_directories(target.parent_path(), error);
  if (error) throw Error("{}: cannot create its directory: {}", directory.string(), error.message());
  Unfinished out(target);
  if (::mkdir(out.path().c_str(), 0777) != 0)
    throw Error("{}: cannot create: {}", directory.string(), std::strerror(errno));
  fill(out.path());
  out.publish();
}

void sync_path(const fs::path& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (file.get() < 0) throw Error("{}: cannot open: {}", path.string(), std::strerror(errno));
  // Some file systems cannot sync directories; they have nothing to sync then.
  if (::fsync(file.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    throw Error("{}: cannot sync: {}", path.string(), std::strerror(errno));
}

std::string read_text(const fs::path& file, std::uintmax_t limit) {
  std::string out;
  read_pieces(file, [&](const char* piece, std::size_t count) {
    if (out.size() + count > limit)
      throw Error("{}: found more than {} bytes, expected at most that", file.string(), limit);
    out.append(piece, count);
  });
  return out;
}

std::string sha256_file(const fs::path& file) {
  Sha256 sum;
  read_pieces(file, [&](const char* piece, std::size_t count) { sum.add(piece, count); });
  return sum.hex();
}

}  // namespace routescope::data
