// Text files to token shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace routescope::data {

/// The content of a text file, inflated if it is a gzip file. Throws Error for a directory, a damaged gzip file, ...
std::string read_document(const std::filesystem::path& file);

/// The offset of the last `fraction` of a text, moved forward to the start of the next line or, if no line follows, to
/// the next character.
std::size_t split_point(const std::string& text, double fraction);

struct TokenizeOptions {
  std::vector<std::filesystem::path> inputs;  // a document each
  std::filesystem::path output;
  std::optional<std::filesystem::path> valid_output;  // gets the last valid_fraction of every document
  double valid_fraction = 0;
};

struct TokenizeResult {
  std::int64_t documents = 0;  // empty ones are left out
  std::int64_t tokens = 0, valid_tokens = 0;
};

/// Byte tokens, every document followed by the end-of-document token. Both outputs are complete or absent. Throws
/// Error.
TokenizeResult tokenize(const TokenizeOptions& options);

}  // namespace routescope::data
