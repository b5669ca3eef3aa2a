// The header of a token shard, for its reader and its writer (data/formats/shard.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace routescope::data::shard_format {

/// 256 int32, little-endian: magic, version, number of tokens, zeros.
inline constexpr std::size_t header_words = 256;
inline constexpr std::size_t header_bytes = header_words * sizeof(std::int32_t);

struct Kind {
  std::int32_t magic;
  std::int32_t version;
  int width;  // bytes a token
};
inline constexpr std::array<Kind, 2> kinds{{{20240520, 1, 2}, {20240801, 7, 4}}};

inline const Kind* kind_of_magic(std::int32_t magic) {
  for (const Kind& kind : kinds)
    if (kind.magic == magic) return &kind;
  return nullptr;
}

}  // namespace routescope::data::shard_format
