// FILE.journal: the structure of an HDF5 file once more, each piece written and checksummed before it is written into
// the file itself. A process that is killed inside a write, a machine that loses power after one, or a damaged byte can
// leave a piece of the file that no longer fits its checksum; with the journal laid over it the file reads as it was
// after the last whole entry (data/formats/journal.md).
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

/// The writer's side. Until publish() everything is only remembered.
class Journal {
 public:
  Journal() = default;
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// 0, or the errno of the failed write; nothing is written after a failure. A journal that has grown to several times
  /// what it describes is written anew.
  int write(std::int64_t address, std::span<const std::byte> bytes);
  /// Writes everything under the name `file`, which is replaced, and syncs it. What is written from then on is added.
  /// Throws Error.
  void publish(const std::filesystem::path& file, const JournalMark& mark);
  /// The same again, under the same name.
  void compact();
  /// Nothing more is written.
  void stop();

  /// Whether the values of datasets are to be written as well; the one who writes looks here.
  bool values_too = true;

 private:
  /// Writes it anew and syncs it, but not its name. 0 or errno.
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
/// What a journal says.
struct JournalContent {
  JournalMark mark;
  ByteImage image;
};
/// Up to the first entry that is not whole. Nothing if `file` has no journal, or one of another version. Whether it
/// belongs to the file that has this name now is for the one to check who opens it (stands_in()).
std::optional<JournalContent> read_journal(const std::filesystem::path& file);
/// Whether an open file is the one that `mark` was made for.
bool stands_in(int descriptor, const JournalMark& mark);

}  // namespace routescope::data
