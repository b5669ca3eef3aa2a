// YAML from outside: one document, within bounds.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace routescope::data {

/// Parses one YAML document; a text without any is Null. Whoever walks the result needs no bounds of its own. Throws
/// Error ("WHERE:LINE: ...") for what is not YAML, a second document, a key found twice, keys that are no texts, tags,
/// merge keys (<<), control characters, nesting deeper than 64, keys of more than 1000 bytes, aliases that
/// contain themselves, and aliases that would expand to more than 100,000 values.
YAML::Node parse_yaml(const std::string& text, const std::string& where);
/// The same for a file of at most 16 MiB.
YAML::Node read_yaml(const std::filesystem::path& file);

/// The integer at a path of keys such as "train.steps"; nothing where there is none. Throws Error ("WHERE: key PATH:
/// ...") for a value that is no integer.
std::optional<std::int64_t> yaml_integer(const YAML::Node& root, const std::string& path, const std::string& where);

}  // namespace routescope::data
