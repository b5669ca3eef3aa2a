// Opening input files, and writing outputs so that they are complete or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>

namespace routescope::data {

/// Whether flock() answered with this because the file system, or its mount, has no locks: ENOSYS, ENOLCK, EOPNOTSUPP.
bool has_no_locks(int reason);

/// Closes a file descriptor at the end of its life.
class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor = -1) : descriptor_(descriptor) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Opens a file for reading. Throws Error if it is a directory, FIFO, device or socket: so no reader waits for a writer
/// that never comes, or reads without end.
FileDescriptor open_regular(const std::filesystem::path& file);
/// Throws as open_regular() does: for files that a library opens by name.
void require_regular(const std::filesystem::path& file);
/// Throws Error if the path is there, but no regular file (links are followed), so that no output can replace it.
void require_replaceable(const std::filesystem::path& file);

/// A file, or directory, before it is complete. It lies in a new directory beside its target, which only this user can
/// read and which is removed, with all in it, at the end of this object's life. What processes left that were killed
/// is removed by the next that writes there.
class Unfinished {
 public:
  /// `target` may be a link: it stays, and the file that it names is written. Throws Error: see require_replaceable().
  explicit Unfinished(const std::filesystem::path& target);
  ~Unfinished();
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  /// Where to create the file or directory. Nothing is there yet.
  const std::filesystem::path& path() const { return path_; }
  /// Syncs and renames to the target. A file replaces one that is there and takes its permissions; a directory replaces
  /// nothing: the last of two files wins, and the first of two directories. Throws Error.
  void publish();
  /// Whether another Unfinished lies in the same directory, of a process that lives: it may replace a file there with
  /// what it made from older files. (Where the file system cannot tell who lives: one of the last day.)
  bool has_others() const;

 private:
  std::filesystem::path target_, place_, path_;
  FileDescriptor lock_;
};

/// The target of an Unfinished::path(), for messages. Any other name is returned unchanged.
std::filesystem::path final_name(const std::filesystem::path& file);

/// Writes `file`: `write` creates it at the path that it gets. If anything throws, nothing has changed.
void write_atomically(const std::filesystem::path& file,
                      const std::function<void(const std::filesystem::path&)>& write);
/// The same for a short text.
void write_text_atomically(const std::filesystem::path& file, const std::string& text);
/// Makes a new directory: `fill` writes and syncs its files. Throws Error if `directory` exists, then or at the end.
void write_directory_atomically(const std::filesystem::path& directory,
                                const std::function<void(const std::filesystem::path&)>& fill);
/// fsync of a file or directory. Throws Error.
void sync_path(const std::filesystem::path& path);

/// More than any text of this project holds, and less than a machine's memory.
inline constexpr std::uintmax_t most_text_bytes = std::uintmax_t{1} << 28;
/// The whole file as text. Throws Error naming it, also if it holds more than `limit` bytes.
std::string read_text(const std::filesystem::path& file, std::uintmax_t limit = most_text_bytes);
/// SHA-256 in hexadecimal, as sha256sum prints it. Throws Error.
std::string sha256_file(const std::filesystem::path& file);

}  // namespace routescope::data
