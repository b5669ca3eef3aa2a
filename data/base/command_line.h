// Reading the command line of a tool.
#pragma once

#include <CLI/CLI.hpp>
#include <limits>
#include <optional>
#include <type_traits>

#include "data/base/error.h"
#include "data/base/number.h"

namespace routescope::data {

namespace detail {

template <class T>
struct NumberOf {
  using Type = T;
};
template <class T>
struct NumberOf<std::optional<T>> {
  using Type = T;
};

}  // namespace detail

/// An option whose value is a number from `least` to `most`, as parse_number() reads it; else UsageError. CLI11's own
/// numbers are octal and hexadecimal too, wrap or saturate, and may be infinite: parse_command_line() refuses them.
template <class T, class Number = typename detail::NumberOf<T>::Type>
CLI::Option* add_number(CLI::App& app, const std::string& name, T& value, const std::string& text,
                        std::type_identity_t<Number> least = std::numeric_limits<Number>::lowest(),
                        std::type_identity_t<Number> most = std::numeric_limits<Number>::max()) {
  const std::string shown = name.substr(0, name.find(','));
  CLI::Option* option = app.add_option_function<std::string>(
      name,
      [&value, shown, least, most](const std::string& given) {
        value = parse_number<Number, UsageError>(given, shown, least, most);
      },
      text);
  option->type_name(std::is_integral_v<Number> ? "N" : "NUMBER");
  if constexpr (std::is_same_v<T, Number>) option->default_str(fmt::format("{}", value));
  return option;
}

/// Parses. Returns an exit status if the tool has nothing more to do (--help, --version: already printed). Throws
/// UsageError. For use within run_tool():  if (const auto done = parse_command_line(app, argc, argv)) return *done;
std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv);

}  // namespace routescope::data
