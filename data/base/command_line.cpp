#include "data/base/command_line.h"

#include <stdexcept>

namespace routescope::data {

namespace {

void require_own_numbers(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options())
    for (const char* type : {"INT", "UINT", "FLOAT"})
      if (option->get_type_name().find(type) == 0)
        throw std::invalid_argument(option->get_name() + ": expected add_number() for an option that is a number");
  for (const CLI::App* command : app.get_subcommands(nullptr)) require_own_numbers(*command);
}

// A shell expands --out ~/x, but not --out=~/x, which would make a directory named ~.
void require_expanded(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options())
    for (const std::string& value : option->results())
      if (value == "~" || value.starts_with("~/"))
        throw UsageError("{}: found {}, which the shell did not expand: expected a path (./{} is one of that name)",
                         option->get_name(), value, value);
  for (const CLI::App* command : app.get_subcommands()) require_expanded(*command);
}

}  // namespace

std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  require_own_numbers(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& shown) {
    return app.exit(shown);
  } catch (const CLI::ParseError& wrong) {
    throw UsageError("{} (see --help)", wrong.what());
  }
  require_expanded(app);
  return std::nullopt;
}

}  // namespace routescope::data
