// The built-in tokenizer: UTF-8 bytes are ids 0..255, and 256 ends a document.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace routescope::data::byte_tokenizer {

inline constexpr std::int64_t vocab_size = 257;
inline constexpr std::int32_t end_of_document = 256;

inline void encode(std::string_view text, std::vector<std::int32_t>& out) {
  for (const char byte : text) out.push_back(static_cast<unsigned char>(byte));
}

/// The text of tokens. An end of document and an id that this tokenizer does not have are shown as <ID>.
inline std::string decode(std::span<const std::int32_t> tokens) {
  std::string out;
  for (const std::int32_t id : tokens) {
    if (id >= 0 && id < end_of_document)
      out += static_cast<char>(id);
    else
      out += "<" + std::to_string(id) + ">";
  }
  return out;
}

}  // namespace routescope::data::byte_tokenizer
