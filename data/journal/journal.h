// FILE.journal: a second copy of the structure of an HDF5 file. Each piece is written here, with a checksum, before it
// is written into the file itself. A process that is killed inside a write, a machine that loses power after one, or a
// damaged byte can leave a piece of the file that no longer fits its checksum. Reading the file with the journal laid
// over it gives the file as it was after the last whole entry (data/formats/journal.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "data/journal/byte_image.h"

namespace routescope::data {

/// Tells which file a journal belongs to: 8 random bytes that stand in the file at a known address.
struct JournalMark {
  std::array<std::byte, 8> id{};
  std::int64_t address = 0;
};

/// The writer's side. Until publish() everything is kept in memory.
class Journal {
 public:
  Journal() = default;
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Returns 0, or the errno of the failed write; nothing is written after a failure. A journal that has grown to
  /// several times the size of what it describes is written anew.
  int write(std::int64_t address, std::span<const std::byte> bytes);
  /// Writes everything under the name `file`, which is replaced, and syncs it. Later writes are added to it. Throws
  /// Error.
  void publish(const std::filesystem::path& file, const JournalMark& mark);
  /// Writes the journal anew under its name, each piece once, and syncs it. Throws Error.
  void compact();
  /// Later writes are ignored.
  void stop();

  /// Whether the file driver is to write the values of datasets as well.
  bool values_too = true;

 private:
  /// Writes it anew and syncs the file, but not the directory. Returns 0 or errno.
  int rewrite();

  std::filesystem::path file_;
  JournalMark mark_;
  int descriptor_ = -1;
  bool stopped_ = false;
  ByteImage image_;
  std::int64_t bytes_ = 0;  // of the file
};

/// The name of the journal of `file`.
std::filesystem::path journal_name(const std::filesystem::path& file);
/// The content of a journal file.
struct JournalContent {
  JournalMark mark;
  ByteImage image;
};
/// Reads up to the first entry that is not whole. Nothing if `file` has no journal, or one of another version. The
/// caller checks with stands_in() whether the journal belongs to the file that has this name now.
std::optional<JournalContent> read_journal(const std::filesystem::path& file);
/// Whether `mark` stands in an open file, that is: whether the journal belongs to it.
bool stands_in(int descriptor, const JournalMark& mark);

}  // namespace routescope::data
