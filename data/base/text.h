// Text from outside: whether it is UTF-8, and how it is shown.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace routescope::data {

/// The bytes of the character of UTF-8 that `text` begins with: 1 to 4, or 0 if it begins with none (RFC 3629: no
/// overlong forms, no surrogates, at most U+10FFFF). A text that ends within a character begins with none.
std::size_t utf8_length(std::string_view text);
/// Whether `text` ends within a character of UTF-8, of which it has the beginning and nothing else.
bool begins_utf8(std::string_view text);
/// The offset of the first byte that is not part of a character of UTF-8.
std::optional<std::size_t> invalid_utf8(std::string_view text);

/// What shows `text` on a terminal without steering it, on one line: control characters (of ASCII, of Unicode, and
/// those that turn the direction of writing) and bytes that are not UTF-8 as \n, \t or \xNN of each byte.
std::string printable(std::string_view text);
/// The same of each line: line ends stay.
std::string printable_lines(std::string_view text);

}  // namespace routescope::data
