// HDF5 files: created, opened, flushed, closed. Everything that this project stores in HDF5 goes through this room;
// every error is one line that names the file and the path inside it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "data/hdf5/group.h"

namespace routescope::data {
struct JournalMark;
}

namespace routescope::data::hdf5 {

/// A file, seen as its root group.
class File : public Group {
 public:
  File() = default;
  using Group::create;
  /// A new file; an existing one is replaced. Write results through write_atomically() (data/base/files.h), so that
  /// they are complete or absent.
  static File create(const std::filesystem::path& file);
  /// A new file that start_swmr() can be called on. Its journal (data/journal/journal.h) is kept in memory until
  /// publish_journal(), and takes the values of datasets as well until journal_values(false).
  static File create_for_swmr(const std::filesystem::path& file);
  /// Read-only. A file that another process is writing in SWMR mode, or that such a writer left when it was killed,
  /// opens as well; its datasets show new rows after Dataset::refresh().
  static File open(const std::filesystem::path& file);
  /// Read-only, as the file was after the last whole entry of its journal, whatever has happened to the file itself
  /// since. Later rows are not seen. Nothing if there is no journal, or if it belongs to another file. Throws Error.
  static std::optional<File> open_with_journal(const std::filesystem::path& file);
  /// For changes in place.
  static File open_writable(const std::filesystem::path& file);

  /// From here on others may read while this process appends. Datasets, groups and attributes can no longer be added.
  void start_swmr();
  /// Whether the journal takes the values of datasets that reach the operating system from now on. Call flush() before,
  /// for values that are to be treated as until now.
  void journal_values(bool on);
  /// Writes the journal of a file from create_for_swmr() under the name `journal` (journal_name()), and syncs it. It is
  /// kept up to date from then on.
  void publish_journal(const std::filesystem::path& journal, const JournalMark& mark);
  /// What was flushed is on the disk when this returns. `file` is the present name.
  void sync(const std::filesystem::path& file);
  /// Hands everything to the operating system.
  void flush();
  /// Closes. Throws Error if anything that was written, at any time, did not reach the file; the destructor cannot
  /// throw, so a writer calls this in the end. Datasets and groups of this file must be gone.
  void close();
  ~File();
  File(File&&) noexcept = default;
  File& operator=(File&& other) noexcept;

 private:
  explicit File(std::shared_ptr<FileState> state);
  void close_quietly() noexcept;
};

}  // namespace routescope::data::hdf5
