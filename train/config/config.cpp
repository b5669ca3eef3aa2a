#include "train/config/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "data/base/error.h"
#include "data/base/json.h"
#include "data/yaml/yaml.h"
#include "train/config/config_keys.h"

namespace routescope::train {

namespace {

/// Later leaves replace earlier ones of the same path: overrides come after the file.
using Leaves = std::map<std::string, ConfigLeaf>;

/// Adds the leaves below `node`. With `once`, a path that is already there is an error.
void collect(const YAML::Node& node, const std::string& path, const std::string& file, bool once, Leaves& leaves) {
  if (node.IsMap()) {
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      collect(entry.second, path.empty() ? key : path + "." + key, file, once, leaves);
    }
    return;
  }
  ConfigLeaf leaf{path, file.empty() ? "command line" : fmt::format("{}:{}", file, node.Mark().line + 1), file.empty(),
                  node};
  if (once && leaves.contains(path)) {
    throw data::Error("{}: {}: found a second time, expected once (first at {})", leaf.where, path,
                      leaves.at(path).where);
  }
  leaves.insert_or_assign(path, std::move(leaf));
}

/// `sections`: some names for the message about a file without keys.
void collect_file(const YAML::Node& root, const std::string& file, const std::string& sections, Leaves& leaves) {
  if (!root.IsMap()) throw data::Error("{}: found no keys, expected a YAML mapping with {}, ...", file, sections);
  collect(root, "", file, true, leaves);
}

void collect_override(const std::string& text, Leaves& leaves) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    throw data::UsageError("command line: found '{}', expected key.path=value", data::shortened(text));
  }
  const std::string key = text.substr(0, equals);
  try {
    collect(data::parse_yaml(text.substr(equals + 1), "command line: " + data::shortened(key)), key, "", false, leaves);
  } catch (const data::Error& error) {
    throw data::UsageError("{}", error.what());
  }
}

/// The keys right below a section, for messages: "preset, residual, ...".
std::string keys_below(const std::string& section, const std::vector<ConfigKey>& keys) {
  std::vector<std::string> below;
  for (const ConfigKey& key : keys) {
    if (!key.path.starts_with(section + ".")) continue;
    const std::string rest = key.path.substr(section.size() + 1);
    const std::string name = rest.substr(0, rest.find('.'));
    if (std::ranges::find(below, name) == below.end()) below.push_back(name);
  }
  return fmt::format("{}", fmt::join(below, ", "));
}

void read_leaves(const Leaves& leaves, const std::vector<ConfigKey>& keys) {
  const auto find = [&keys](const std::string& path) {
    return std::ranges::find_if(keys, [&path](const ConfigKey& key) { return key.path == path; });
  };
  // The preset first: the other model keys change what it sets.
  constexpr const char* kPreset = "model.preset";
  if (const auto preset = leaves.find(kPreset); preset != leaves.end() && find(kPreset) != keys.end()) {
    find(kPreset)->read(preset->second);
  }
  for (const auto& [path, leaf] : leaves) {
    if (const auto key = find(path); key != keys.end()) {
      if (path != kPreset) key->read(leaf);
      continue;
    }
    const std::string below = keys_below(path, keys);
    if (!below.empty()) {
      if (leaf.node.IsNull()) continue;  // an empty section
      throw_config_error(leaf, "a mapping with keys among " + below);
    }
    const std::string shown = data::shortened(path);
    const std::string message =
        fmt::format("{}: {}: unknown key; the nearest known one is {}", leaf.where, shown, nearest_key(shown, keys));
    if (leaf.command_line) throw data::UsageError("{}", message);
    throw data::Error("{}", message);
  }
}

/// The conditions between keys.
void check(const TrainConfig& c, const Leaves& leaves, const std::string& file) {
  const auto where = [&](const std::string& path) {
    const auto leaf = leaves.find(path);
    return leaf == leaves.end() ? file : leaf->second.where;
  };
  for (const char* path : {"run.dir", "data.train", "data.valid", "train.steps"}) {
    if (!leaves.contains(path))
      throw data::Error("{}: {}: found nothing, expected a value (it has no default)", file, path);
  }
  c.model.validate(file + ": model");

  const std::int64_t length = c.data.sequence_length;
  if (length > c.model.max_position_embeddings) {
    throw data::Error("{}: data.sequence_length: found {}, expected at most model.max_position_embeddings = {}",
                      where("data.sequence_length"), length, c.model.max_position_embeddings);
  }
  // Two divisions, because the product of two large numbers could overflow.
  if (c.train.tokens_per_step % length != 0 || (c.train.tokens_per_step / length) % c.train.micro_batch != 0) {
    throw data::Error(
        "{}: train.tokens_per_step: found {}, expected a multiple of data.sequence_length * train.micro_batch = {} * "
        "{}",
        where("train.tokens_per_step"), c.train.tokens_per_step, length, c.train.micro_batch);
  }
  if (std::int64_t tokens = 0; __builtin_mul_overflow(c.train.steps, c.train.tokens_per_step, &tokens)) {
    throw data::Error("{}: train.steps: found {}, expected at most {} steps of train.tokens_per_step = {} tokens",
                      where("train.steps"), c.train.steps,
                      std::numeric_limits<std::int64_t>::max() / c.train.tokens_per_step, c.train.tokens_per_step);
  }
  const OptimizerSettings& optimizer = c.train.optimizer;
  if (!std::isfinite(static_cast<float>(optimizer.learning_rate * optimizer.weight_decay))) {
    throw data::Error(
        "{}: train.optimizer.weight_decay: found {}, expected a product with learning_rate = {} that f32 holds",
        where("train.optimizer.weight_decay"), optimizer.weight_decay, optimizer.learning_rate);
  }
  const TrainConfig::Schedule& schedule = c.train.schedule;
  if (schedule.warmup_steps > c.train.steps) {
    throw data::Error("{}: train.schedule.warmup_steps: found {}, expected at most train.steps = {}",
                      where("train.schedule.warmup_steps"), schedule.warmup_steps, c.train.steps);
  }
  const auto stable_steps = static_cast<double>(c.train.steps - schedule.warmup_steps);
  if (schedule.kind == "wsd" && schedule.decay_fraction * static_cast<double>(c.train.steps) > stable_steps) {
    throw data::Error("{}: train.schedule.decay_fraction: found {}, expected at most {} (warm-up and decay overlap)",
                      where("train.schedule.decay_fraction"), schedule.decay_fraction,
                      stable_steps / static_cast<double>(c.train.steps));
  }
  if (c.checkpoint.weights_dtype != "f32" && c.checkpoint.keep_state == 0) {
    throw data::Error("{}: checkpoint.weights_dtype: found {}, expected f32 as long as checkpoint.keep_state is all",
                      where("checkpoint.weights_dtype"), c.checkpoint.weights_dtype);
  }
  if (c.valid.tokens < length) {
    throw data::Error("{}: valid.tokens: found {}, expected at least data.sequence_length = {}", where("valid.tokens"),
                      c.valid.tokens, length);
  }
}

TrainConfig config_of(const YAML::Node& root, const std::string& file, const std::vector<std::string>& overrides) {
  Leaves leaves;
  collect_file(root, file, "run, model, data, train", leaves);
  for (const std::string& text : overrides) collect_override(text, leaves);
  TrainConfig config;
  read_leaves(leaves, config_keys(config));
  check(config, leaves, file);
  return config;
}

}  // namespace

model::ModelOptions TrainConfig::model_options() const {
  model::ModelOptions options;
  options.device = device == "cuda" ? kernels::Device::cuda : kernels::Device::cpu;
  options.operands = precision == "bf16" ? kernels::DType::bf16 : kernels::DType::f32;
  return options;
}

model::PassOptions TrainConfig::pass_options() const {
  const std::map<std::string, model::ReadPhases> phases{{"auto", model::ReadPhases::automatic},
                                                        {"fused", model::ReadPhases::fused},
                                                        {"two_phase", model::ReadPhases::two}};
  const std::map<std::string, model::Recompute> levels{{"auto", model::Recompute::none},
                                                       {"none", model::Recompute::none},
                                                       {"swiglu", model::Recompute::swiglu},
                                                       {"norms", model::Recompute::norms},
                                                       {"attention", model::Recompute::attention}};
  return {.reads = phases.at(kernels.reads), .recompute = levels.at(kernels.recompute), .graph = kernels.graph == "on"};
}

TrainConfig load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return config_of(data::read_yaml(file), file.string(), overrides);
}

TrainConfig parse_config(const std::string& text, const std::string& where, const std::vector<std::string>& overrides) {
  return config_of(data::parse_yaml(text, where), where, overrides);
}

void read_every_key(const std::filesystem::path& file, const std::vector<ConfigKey>& keys) {
  Leaves leaves;
  collect_file(data::read_yaml(file), file.string(), keys.front().path, leaves);
  read_leaves(leaves, keys);
  for (const ConfigKey& key : keys) {
    if (!leaves.contains(key.path))
      throw data::Error("{}: {}: found nothing, expected a value (it has no default)", file.string(), key.path);
  }
}

void resolve_backend(TrainConfig& config, bool planning) {
  if (config.device == "auto") config.device = kernels::cuda_available() ? "cuda" : "cpu";
  if (!planning || !kernels::cuda_built()) model::device_from_string(config.device, "device");
  if (config.device == "cpu") {
    if (config.kernels.graph == "on") throw data::Error("kernels.graph: found on, expected off: the device is cpu");
    if (config.kernels.attention == "cudnn")
      throw data::Error("kernels.attention: found cudnn, expected auto or builtin: the device is cpu");
  }
}

std::vector<std::pair<std::string, std::string>> config_values(const TrainConfig& config) {
  TrainConfig copy = config;
  std::vector<std::pair<std::string, std::string>> values;
  for (const ConfigKey& key : config_keys(copy)) {
    if (!copy.model.routed() && key.path.starts_with("model.attn_res.")) continue;
    std::string value = key.write();
    if (!value.empty()) values.emplace_back(key.path, std::move(value));
  }
  return values;
}

std::string to_yaml(const TrainConfig& config) {
  std::string yaml;
  std::string section;  // of the previous line, with a final dot
  for (const auto& [path, value] : config_values(config)) {
    const std::size_t last_dot = path.rfind('.');
    const std::string parent = last_dot == std::string::npos ? "" : path.substr(0, last_dot + 1);
    // The headers of enclosing sections in which the previous line was not.
    for (std::size_t dot = parent.find('.'), begin = 0; dot != std::string::npos; dot = parent.find('.', dot + 1)) {
      const std::string prefix = parent.substr(0, dot + 1);
      if (!section.starts_with(prefix)) {
        const auto depth = static_cast<std::size_t>(std::ranges::count(prefix, '.')) - 1;
        yaml += fmt::format("{:{}}{}:\n", "", 2 * depth, prefix.substr(begin, prefix.size() - begin - 1));
      }
      begin = dot + 1;
    }
    const auto depth = static_cast<std::size_t>(std::ranges::count(parent, '.'));
    yaml += fmt::format("{:{}}{}: {}\n", "", 2 * depth, path.substr(parent.size()), value);
    section = parent;
  }
  return yaml;
}

}  // namespace routescope::train
