// Reading the command line of a tool.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

#include "data/base/error.h"

namespace routescope::data {

/// Parses. Returns an exit status if the tool has nothing more to do (--help, --version: already printed). Throws
/// UsageError. For use within run_tool():  if (const auto done = parse_command_line(app, argc, argv)) return *done;
inline std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& shown) {
    return app.exit(shown);
  } catch (const CLI::ParseError& wrong) {
    throw UsageError("{} (see --help)", wrong.what());
  }
  return std::nullopt;
}

}  // namespace routescope::data
