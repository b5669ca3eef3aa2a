// A file that is written from beginning to end, synced, read back and compared: its checksum is that of the bytes on
// the disk.
#pragma once

#include <cstddef>
#include <filesystem>

#include "data/base/manifest.h"
#include "data/base/sha256.h"

namespace routescope::data {

/// Every function throws Error with the file and the system's reason (no space, quota, no such directory, ...). What
/// was written stays; the caller removes it.
class VerifiedFile {
 public:
  /// Creates the file, which must not exist.
  explicit VerifiedFile(const std::filesystem::path& file);
  ~VerifiedFile();
  VerifiedFile(const VerifiedFile&) = delete;
  VerifiedFile& operator=(const VerifiedFile&) = delete;

  void append(const void* data, std::size_t bytes);
  /// Syncs, closes and reads the file back: from the disk, if the system drops its copy in memory. Throws Error also if
  /// the file holds anything else than what was appended.
  ManifestEntry finish();

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
  std::uintmax_t bytes_ = 0;
  Sha256 sum_;
};

}  // namespace routescope::data
