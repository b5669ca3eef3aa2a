// Text files to token shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

namespace routescope::data {

/// Calls its argument with the pieces of a text, from the beginning, until that returns false.
using TextPieces = std::function<void(const std::function<bool(std::string_view)>&)>;

/// The offset of the last `fraction` of a text of `bytes` bytes, moved forward to the start of the next line or, if no
/// line follows, to the next character.
std::int64_t split_point(const TextPieces& text, std::int64_t bytes, double fraction);

struct TokenizeOptions {
  std::vector<std::filesystem::path> inputs;  // a document each
  std::filesystem::path output;
  std::optional<std::filesystem::path> valid_output;  // gets the last valid_fraction of every document
  double valid_fraction = 0;
  bool any_bytes = false;  // inputs need not be text in UTF-8
};

struct TokenizeResult {
  std::int64_t documents = 0;  // empty ones are left out
  std::int64_t tokens = 0, valid_tokens = 0;
};

/// Byte tokens, every document followed by the end-of-document token. Both outputs are complete or absent. Holds pieces
/// of the documents in memory, never one as a whole: with a valid_output it reads each three times. Throws Error.
TokenizeResult tokenize(const TokenizeOptions& options);

}  // namespace routescope::data
