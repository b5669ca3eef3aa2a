#include "data/base/text.h"

#include <fmt/format.h>

#include <array>

namespace routescope::data {

namespace {

unsigned byte_of(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

char32_t code_of(std::string_view character) {
  constexpr std::array<unsigned, 5> first_bits{0, 0x7f, 0x1f, 0x0f, 0x07};
  char32_t code = byte_of(character, 0) & first_bits.at(character.size());
  for (std::size_t i = 1; i < character.size(); ++i) code = code << 6 | (byte_of(character, i) & 0x3f);
  return code;
}

bool steers(char32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || (code >= 0x200e && code <= 0x200f) ||
         (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

std::string escaped(std::string_view text, bool keep_lines) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::string_view character = text.substr(0, length == 0 ? 1 : length);
    text.remove_prefix(character.size());
    if ((length > 0 && !steers(code_of(character))) || (keep_lines && character == "\n"))
      out += character;
    else if (character == "\n" || character == "\t")
      out += character == "\n" ? "\\n" : "\\t";
    else
      for (std::size_t i = 0; i < character.size(); ++i) out += fmt::format("\\x{:02x}", byte_of(character, i));
  }
  return out;
}

}  // namespace

std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const unsigned first = byte_of(text, 0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : 4;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte_of(text, i) & 0xc0) != 0x80) return 0;
  const char32_t code = code_of(text.substr(0, length));
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  return overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : length;
}

bool begins_utf8(std::string_view text) {
  // Each first byte allows the smallest or the largest continuation.
  for (const char more : {'\x80', '\xbf'})
    if (utf8_length(std::string(text) + std::string(3, more)) > text.size()) return !text.empty();
  return false;
}

std::optional<std::size_t> invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::string printable(std::string_view text) {
  return escaped(text, false);
}

std::string printable_lines(std::string_view text) {
  return escaped(text, true);
}

}  // namespace routescope::data
