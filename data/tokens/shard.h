// Token shards: llm.c's .bin files (data/formats/shard.md). They are read when tokens are needed, not mapped: a file
// that shrinks while it is mapped would end the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/base/files.h"

namespace routescope::data {

/// One shard. Throws Error for a missing or truncated file, a wrong magic or version, a size that contradicts the
/// header.
class Shard {
 public:
  explicit Shard(const std::filesystem::path& file);

  const std::filesystem::path& file() const { return file_; }
  std::int64_t size() const { return tokens_; }
  int bytes_per_token() const { return width_; }  // 2 or 4
  /// Tokens [begin, begin + out.size()) into out. Throws Error if the file is no longer the one that was opened.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;
  /// Throws Error if another file has the name now, or the file's size or the time of its last change is another one.
  void check_unchanged() const;
  /// The largest id of the whole shard (one pass over it), and the number of the first token that has it.
  std::int32_t largest_id(std::int64_t* offset = nullptr) const;

 private:
  struct Identity {
    std::uint64_t device = 0, inode = 0;
    std::int64_t bytes = 0, changed = 0;  // nanoseconds
    bool operator==(const Identity&) const = default;
  };
  void read_bytes(std::int64_t offset, std::span<std::byte> out) const;

  std::filesystem::path file_;
  FileDescriptor descriptor_;
  Identity opened_;
  std::int64_t tokens_ = 0;
  int width_ = 2;
};

/// Several shards as one stream of tokens, in the order given. Patterns like train-*.bin are expanded, sorted.
class TokenStream {
 public:
  /// Throws Error as shard_files() does, or if a token is not below vocab_size (vocab_size 0: not checked).
  TokenStream(const std::vector<std::string>& patterns, std::int64_t vocab_size);
  std::int64_t size() const { return total_; }
  /// The first shard's file and how many there are beside it, for messages.
  std::string name() const;
  /// Tokens [begin, begin + out.size()), across shard ends.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;
  /// Reads the first `count` tokens, or all if there are fewer, into memory: later reads of them need no file.
  void hold(std::int64_t count);
  /// Shard::check_unchanged() of every shard.
  void check_unchanged() const;
  /// A digest of sizes and of the ends of the shards that tells one data set from another.
  std::string fingerprint() const;

 private:
  std::vector<Shard> shards_;
  std::vector<std::int64_t> starts_;
  std::vector<std::int32_t> held_;  // the first tokens
  std::int64_t total_ = 0;
};

}  // namespace routescope::data
