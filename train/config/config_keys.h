// The table of configuration keys: the path of each key, how its value is read from YAML, and how it is written back.
// Reading, spelling, writing and comparing of configurations all use this table.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "train/config/config.h"

namespace routescope::train {

/// One value in the file or on the command line.
struct ConfigLeaf {
  std::string path;   // "train.steps"
  std::string where;  // "FILE:LINE" or "command line"
  bool command_line = false;
  YAML::Node node;
};

/// Throws "WHERE: PATH: found ..., expected ...", as a UsageError for the command line.
[[noreturn]] void throw_config_error(const ConfigLeaf& leaf, const std::string& expected);

struct ConfigKey {
  std::string path;
  std::function<void(const ConfigLeaf&)> read;  // sets the value in the configuration of the table
  std::function<std::string()> write;           // the value as YAML text; "": the key is not written
};

/// Keys by type: the path, the variable that holds the value, and the allowed values. `expected` completes the message
/// "expected ...".
namespace config_key {
ConfigKey integer(std::string path, std::int64_t& value, std::int64_t minimum,
                  std::int64_t maximum = std::numeric_limits<std::int64_t>::max());
ConfigKey real(std::string path, double& value, std::string expected, std::function<bool(double)> within);
/// The same for a number that is computed with in f32: it must be allowed before and after it is rounded, and neither
/// vanish nor overflow.
ConfigKey real_f32(std::string path, double& value, std::string expected, std::function<bool(double)> within);
ConfigKey text(std::string path, std::string& value, std::string expected);
ConfigKey word(std::string path, std::string& value, std::vector<std::string> words);
}  // namespace config_key

/// The table over `config`, in the order of the written file. It holds references into `config`.
std::vector<ConfigKey> config_keys(TrainConfig& config);

/// Reads a YAML file that must have every key of the table and no other. Throws Error as load_config() does.
void read_every_key(const std::filesystem::path& file, const std::vector<ConfigKey>& keys);

/// The known path that is closest to an unknown one, by edit distance of the whole path or of its last word.
std::string nearest_key(const std::string& path, const std::vector<ConfigKey>& keys);

/// Levenshtein distance.
std::size_t edit_distance(const std::string& a, const std::string& b);

}  // namespace routescope::train
