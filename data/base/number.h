// Numbers that users write: of options, keys of a configuration and key=value.
#pragma once

#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "data/base/error.h"
#include "data/base/text.h"

namespace routescope::data {

/// The least double above 0: as `least`, for a number that must be positive.
inline constexpr double above_zero = std::numeric_limits<double>::denorm_min();

/// The number that the whole of `text` is, in decimal: 10 for "010". Integers have no fraction and no exponent. Throws
/// Failure (an Error), which begins with `where`, for anything else: no digits, spaces, +, 0x10, nan, inf, a value
/// outside [least, most], or a fraction so small that it would become 0.
template <class T, class Failure = Error>
T parse_number(std::string_view text, const std::string& where, T least = std::numeric_limits<T>::lowest(),
               T most = std::numeric_limits<T>::max()) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, bad] = std::from_chars(text.data(), end, value);
  bool good = bad == std::errc() && stop == end && value >= least && value <= most;
  if constexpr (std::is_floating_point_v<T>) good = good && std::isfinite(value);
  if (good) return value;
  const std::string kind = std::is_integral_v<T> ? "a whole number" : "a number";
  std::string range;
  if (least == std::numeric_limits<T>::lowest() && most == std::numeric_limits<T>::max())
    range = std::is_integral_v<T> ? fmt::format(" from {} to {}", least, most) : " that is finite";
  else if (least > 0 && least < std::numeric_limits<T>::min())
    range = most == std::numeric_limits<T>::max() ? " above 0" : fmt::format(" above 0, at most {}", most);
  else if (most == std::numeric_limits<T>::max())
    range = fmt::format(" of at least {}", least);
  else
    range = fmt::format(" from {} to {}", least, most);
  constexpr std::size_t most_shown = 60;
  const std::string shown = printable(text.substr(0, most_shown));
  throw Failure("{}: found {}{}, expected {}{}", where, text.empty() ? "nothing" : shown,
                text.size() > most_shown ? "..." : "", kind, range);
}

}  // namespace routescope::data
