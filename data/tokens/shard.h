// Token shards: llm.c's .bin files, memory-mapped (data/formats/shard.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace routescope::data {

/// One shard. Throws Error for a missing or truncated file, a wrong magic or version, a size that contradicts the
/// header.
class Shard {
 public:
  explicit Shard(const std::filesystem::path& file);
  ~Shard();
  Shard(Shard&& other) noexcept;
  Shard& operator=(Shard&&) = delete;

  const std::filesystem::path& file() const { return file_; }
  std::int64_t size() const { return tokens_; }
  int bytes_per_token() const { return width_; }  // 2 or 4
  /// Tokens [begin, begin + out.size()) into out.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;
  /// The largest id of the whole shard (one pass over it), and the number of the first token that has it.
  std::int32_t largest_id(std::int64_t* offset = nullptr) const;

 private:
  std::filesystem::path file_;
  const std::byte* map_ = nullptr;
  std::size_t map_size_ = 0;
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
  /// A digest of sizes and of the ends of the shards that tells one data set from another.
  std::string fingerprint() const;

 private:
  std::vector<Shard> shards_;
  std::vector<std::int64_t> starts_;
  std::int64_t total_ = 0;
};

}  // namespace routescope::data
