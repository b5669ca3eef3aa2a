// JSON from outside: parsed within bounds, and read without conversions.
#pragma once

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::data {

/// A text for a message: of a long one the first 60 bytes and "...".
inline std::string shortened(std::string_view text) {
  constexpr std::size_t kMost = 60;
  return text.size() <= kMost ? std::string(text) : std::string(text.substr(0, kMost)) + "...";
}

/// A value for a message, shortened. Never throws, whatever bytes its texts have.
template <class Json>
std::string excerpt(const Json& value) {
  return shortened(value.dump(-1, ' ', false, nlohmann::detail::error_handler_t::replace));
}

namespace json_limits {
inline constexpr int depth = 64;
inline constexpr std::size_t values = std::size_t{1} << 23;
}  // namespace json_limits

/// "line 1, column 2: syntax error ..." of nlohmann's "[json.exception.parse_error.101] parse error at line 1, ...".
inline std::string reason_of(const nlohmann::json::exception& error) {
  std::string text = error.what();
  if (const auto end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
  constexpr std::string_view kBefore = "parse error at ";
  if (text.starts_with(kBefore)) text.erase(0, kBefore.size());
  constexpr std::size_t kMost = 160;
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

/// Parses one JSON text. Throws Error, which names `where`, for what is not JSON, for a key that an object has twice,
/// for nesting deeper than 64, and for more than 8 million values. `Json` is nlohmann::json or ordered_json.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& where) {
  // The parser would take a NUL byte for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw Error("{}: not JSON: found a NUL byte at offset {}, expected text", where, nul);
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::size_t values = 0;
  const auto check = [&](int depth, typename Json::parse_event_t event, const Json& parsed) {
    using Event = typename Json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= json_limits::depth)
      throw Error("{}: found brackets nested deeper than {}, expected JSON of fewer levels", where, json_limits::depth);
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.template get_ref<const std::string&>()).second)
      throw Error("{}: {}: found a second time, expected once", where, excerpt(parsed));
    if (event != Event::object_end && event != Event::array_end && ++values > json_limits::values)
      throw Error("{}: found more than {} values and keys, expected JSON of fewer", where, json_limits::values);
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& error) {
    throw Error("{}: not JSON: {}", where, reason_of(error));
  }
}

/// The same for a file.
inline nlohmann::json read_json(const std::filesystem::path& file) {
  return parse_json(read_text(file), file.string());
}

/// `value` as a T: bool, an integer, double, std::string, Json itself or a vector of these. Throws Error, which names
/// `where`, for a value of another type or out of T's range: nothing is converted.
template <class T, class Json>
T json_value(const Json& value, const std::string& where) {
  const auto expect = [&](bool fits, const std::string& expected) {
    if (!fits) throw Error("{}: found {}, expected {}", where, excerpt(value), expected);
  };
  if constexpr (std::is_same_v<T, bool>) {
    expect(value.is_boolean(), "true or false");
  } else if constexpr (std::is_integral_v<T>) {
    const bool fits = value.is_number_unsigned()
                          ? std::in_range<T>(value.template get<std::uint64_t>())
                          : value.is_number_integer() && std::in_range<T>(value.template get<std::int64_t>());
    expect(value.is_number_integer(), "an integer");
    expect(fits, fmt::format("an integer from {} to {}", std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
  } else if constexpr (std::is_floating_point_v<T>) {
    expect(value.is_number() && std::isfinite(value.template get<double>()), "a finite number");
  } else if constexpr (std::is_same_v<T, std::string>) {
    expect(value.is_string(), "a string");
  } else if constexpr (std::is_same_v<T, Json>) {
    return value;
  } else {
    expect(value.is_array(), "a list");
    T items;
    for (std::size_t i = 0; i < value.size(); ++i)
      items.push_back(json_value<typename T::value_type>(value[i], fmt::format("{}[{}]", where, i)));
    return items;
  }
  return value.template get<T>();
}

/// A member of an object. Throws Error, which names `where` and the key, if `object` is none or lacks it.
template <class Json>
const Json& json_member(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) throw Error("{}: found {}, expected a JSON object", where, excerpt(object));
  const auto found = object.find(key);
  if (found == object.end()) throw Error("{}: {}: found nothing, expected a value", where, key);
  return *found;
}
template <class T, class Json>
T json_member(const Json& object, const std::string& key, const std::string& where) {
  return json_value<T>(json_member(object, key, where), where + ": " + key);
}

}  // namespace routescope::data
