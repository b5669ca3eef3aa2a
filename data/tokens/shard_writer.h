// Writing a token shard: under another name first, then renamed in one piece (data/formats/shard.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace routescope::data {

/// Writes a shard (uint16 where every id below vocab_size fits, else uint32), complete or absent.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path file, std::int64_t vocab_size);
  ~ShardWriter();
  void append(std::span<const std::int32_t> tokens);
  /// Completes the header, syncs, renames. Without this call the destructor removes what was written.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace routescope::data
