#include "train/config/config_keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "data/base/error.h"
#include "data/base/json.h"
#include "data/base/paths.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

namespace {

constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int64_t>::max();
// Bounds far above any use, below which sums and products of two counts do not overflow.
constexpr std::int64_t kMaxSequences = std::int64_t{1} << 31;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 53;
constexpr std::int64_t kMaxMebibytes = std::int64_t{1} << 20;
constexpr double kMaxSeconds = 1e9;

/// Whether a node is a scalar without quotes. A quoted scalar is always a text.
bool is_plain(const YAML::Node& node) {
  return node.IsScalar() && node.Tag() != "!";
}

template <class T>
std::optional<T> parse_number(const YAML::Node& node) {
  if (!is_plain(node)) return std::nullopt;
  const std::string& text = node.Scalar();
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string describe(const YAML::Node& node) {
  if (!node.IsDefined() || node.IsNull()) return "nothing";
  if (node.IsScalar()) return fmt::format("{0}{1}{0}", node.Tag() == "!" ? '"' : '\'', data::shortened(node.Scalar()));
  if (node.IsSequence()) return fmt::format("a list of {}", node.size());
  return "a mapping";
}

/// Without quotes if YAML then reads the same text back, else in double quotes.
std::string yaml_text(const std::string& text) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '/' || c == '-';
  };
  if (!text.empty() && std::isalpha(static_cast<unsigned char>(text[0])) != 0 && std::ranges::all_of(text, plain) &&
      text != "null" && text != "true" && text != "false" && text != "yes" && text != "no") {
    return text;
  }
  YAML::Emitter emitter;
  emitter << YAML::DoubleQuoted << text;
  return emitter.c_str();
}

}  // namespace

namespace config_key {

ConfigKey integer(std::string path, std::int64_t& value, std::int64_t minimum, std::int64_t maximum) {
  const auto read = [&value, minimum, maximum](const ConfigLeaf& leaf) {
    const auto number = parse_number<std::int64_t>(leaf.node);
    if (!number || *number < minimum || *number > maximum) {
      // A bound that only keeps sums from overflowing is named to those who meet it.
      const bool near = maximum < kMaxMebibytes || (number && *number > maximum);
      throw_config_error(leaf, near ? fmt::format("an integer between {} and {}", minimum, maximum)
                                    : fmt::format("an integer of at least {}", minimum));
    }
    value = *number;
  };
  return {std::move(path), read, [&value] { return fmt::format("{}", value); }};
}

ConfigKey real(std::string path, double& value, std::string expected, std::function<bool(double)> within) {
  const auto read = [&value, expected = std::move(expected), within = std::move(within)](const ConfigLeaf& leaf) {
    const auto number = parse_number<double>(leaf.node);
    if (!number || !std::isfinite(*number) || !within(*number)) throw_config_error(leaf, expected);
    value = *number;
  };
  return {std::move(path), read, [&value] { return fmt::format("{}", value); }};
}

ConfigKey real_f32(std::string path, double& value, std::string expected, std::function<bool(double)> within) {
  using Limits = std::numeric_limits<float>;
  ConfigKey key = real(std::move(path), value, expected, within);
  key.read = [&value, expected = std::move(expected), within = std::move(within),
              read = key.read](const ConfigLeaf& leaf) {
    const double before = value;
    read(leaf);
    const auto rounded = static_cast<float>(value);
    const bool normal = value == 0 || (std::isfinite(rounded) && std::fabs(rounded) >= Limits::min());
    if (normal && within(static_cast<double>(rounded))) return;
    const bool vanishes_or_overflows = !normal;
    value = before;
    throw_config_error(leaf, vanishes_or_overflows
                                 ? fmt::format("{} that f32 can hold (a size between {:.3g} and {:.3g})", expected,
                                               Limits::min(), Limits::max())
                                 : fmt::format("{} also when it is rounded to f32", expected));
  };
  return key;
}

ConfigKey text(std::string path, std::string& value, std::string expected) {
  const auto read = [&value, expected = std::move(expected)](const ConfigLeaf& leaf) {
    if (!leaf.node.IsScalar() || leaf.node.Scalar().empty()) throw_config_error(leaf, expected);
    value = leaf.node.Scalar();
  };
  return {std::move(path), read, [&value] { return yaml_text(value); }};
}

ConfigKey word(std::string path, std::string& value, std::vector<std::string> words) {
  const auto read = [&value, words = std::move(words)](const ConfigLeaf& leaf) {
    if (!leaf.node.IsScalar() || std::ranges::find(words, leaf.node.Scalar()) == words.end()) {
      throw_config_error(leaf, fmt::format("one of {}", fmt::join(words, ", ")));
    }
    value = leaf.node.Scalar();
  };
  return {std::move(path), read, [&value] { return value; }};
}

}  // namespace config_key

namespace {

using namespace config_key;

/// The path that a text stands for. Throws "WHERE: KEY: ...".
std::string path_of(const ConfigLeaf& leaf, const std::string& text) {
  try {
    return data::expand_path(text, leaf.where + ": " + leaf.path);
  } catch (const data::Error& error) {
    if (leaf.command_line) throw data::UsageError("{}", error.what());
    throw;
  }
}

ConfigKey directory(std::string path, std::string& value) {
  ConfigKey key = text(std::move(path), value, "a directory");
  key.read = [&value, read = key.read](const ConfigLeaf& leaf) {
    read(leaf);
    value = path_of(leaf, value);
  };
  return key;
}

/// A list of paths or patterns, or a single one.
ConfigKey path_list(std::string path, std::vector<std::string>& value, std::string expected) {
  const auto read = [&value, expected = std::move(expected)](const ConfigLeaf& leaf) {
    std::vector<std::string> items;
    if (leaf.node.IsScalar()) {
      items.push_back(leaf.node.Scalar());
    } else if (leaf.node.IsSequence()) {
      for (const YAML::Node& item : leaf.node) {
        if (!item.IsScalar()) throw_config_error(leaf, expected);
        items.push_back(item.Scalar());
      }
    }
    if (items.empty() || std::ranges::any_of(items, &std::string::empty)) throw_config_error(leaf, expected);
    for (std::string& item : items) item = path_of(leaf, item);
    value = std::move(items);
  };
  const auto write = [&value] {
    std::vector<std::string> items;
    for (const std::string& item : value) items.push_back(yaml_text(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  };
  return {std::move(path), read, write};
}

ConfigKey all_or_count(std::string path, std::int64_t& value) {
  const auto read = [&value](const ConfigLeaf& leaf) {
    if (leaf.node.IsScalar() && leaf.node.Scalar() == "all") {
      value = 0;
      return;
    }
    const auto number = parse_number<std::int64_t>(leaf.node);
    if (!number || *number < 1) throw_config_error(leaf, "all, or an integer of at least 1");
    value = *number;
  };
  return {std::move(path), read, [&value] { return value == 0 ? std::string("all") : fmt::format("{}", value); }};
}

/// A Hugging Face key, as JSON, for ModelConfig::set().
nlohmann::json to_json(const YAML::Node& node) {
  if (!node.IsDefined() || node.IsNull()) return nullptr;
  if (node.IsSequence()) {
    nlohmann::json list = nlohmann::json::array();
    for (const YAML::Node& item : node) list.push_back(to_json(item));
    return list;
  }
  if (const auto number = parse_number<std::int64_t>(node)) return *number;
  if (const auto number = parse_number<double>(node)) return *number;
  if (is_plain(node) && (node.Scalar() == "true" || node.Scalar() == "false")) return node.Scalar() == "true";
  return node.Scalar();
}

/// A token id or a list of them. As to_json() has it: without ids that the vocabulary lacks.
ConfigKey token_ids(const std::string& name, std::vector<std::int64_t>& ids, const model::ModelConfig& model) {
  const auto read = [&ids](const ConfigLeaf& leaf) {
    const nlohmann::json found = to_json(leaf.node);
    const nlohmann::json list = found.is_array() ? found : nlohmann::json::array({found});
    const auto is_id = [](const nlohmann::json& one) {
      return one.is_number_integer() && one.get<std::int64_t>() >= 0 &&
             one.get<std::int64_t>() <= std::numeric_limits<std::int32_t>::max();
    };
    if (!std::ranges::all_of(list, is_id)) throw_config_error(leaf, "a token id or a list of them");
    ids = list.get<std::vector<std::int64_t>>();
  };
  const auto write = [name, &model] {
    const nlohmann::json written = model.to_json().at(name);
    return written.is_null() ? std::string() : written.dump();
  };
  return {"model." + name, read, write};
}

void add_model_keys(std::vector<ConfigKey>& keys, model::ModelConfig& model) {
  // A preset sets the other keys, so config.cpp reads it first. It is not written: the keys that it set are.
  const auto read_preset = [&model](const ConfigLeaf& leaf) {
    const std::vector<std::string> names = model::ModelConfig::preset_names();
    if (!leaf.node.IsScalar() || std::ranges::find(names, leaf.node.Scalar()) == names.end()) {
      throw_config_error(leaf, fmt::format("one of {}", fmt::join(names, ", ")));
    }
    model = model::ModelConfig::preset(leaf.node.Scalar());
  };
  keys.push_back({"model.preset", read_preset, [] { return std::string(); }});

  for (const std::string& name : model::ModelConfig::keys()) {
    if (name.starts_with("attnres_")) continue;  // their keys are model.attn_res.*
    const auto read = [&model, name](const ConfigLeaf& leaf) {
      try {
        model.set(name, to_json(leaf.node), leaf.where + ": model");
      } catch (const data::Error& error) {
        if (leaf.command_line) throw data::UsageError("{}", error.what());
        throw;
      }
    };
    const auto write = [&model, name] {
      const nlohmann::json json = model.to_json();
      const auto found = json.find(name);
      if (found == json.end() || found->is_null()) return std::string();
      return found->is_string() ? yaml_text(found->get<std::string>()) : found->dump();
    };
    keys.push_back({"model." + name, read, write});
  }

  for (const auto& [name, ids] :
       {std::pair{"bos_token_id", &model.bos_token_id}, {"eos_token_id", &model.eos_token_id}})
    keys.push_back(token_ids(name, *ids, model));

  const auto choice = [&keys](std::string path, std::vector<std::string> words, auto set, auto get) {
    const auto read = [words = std::move(words), set](const ConfigLeaf& leaf) {
      if (!leaf.node.IsScalar() || std::ranges::find(words, leaf.node.Scalar()) == words.end()) {
        throw_config_error(leaf, fmt::format("one of {}", fmt::join(words, ", ")));
      }
      set(leaf.node.Scalar());
    };
    keys.push_back({std::move(path), read, get});
  };
  choice(
      "model.residual",
      {model::to_string(model::Residual::standard), model::to_string(model::Residual::block_attn_res),
       model::to_string(model::Residual::full_attn_res)},
      [&model](const std::string& text) { model.residual = model::residual_from_string(text); },
      [&model] { return model::to_string(model.residual); });
  choice(
      "model.attn_res.source",
      {model::to_string(model::AttnResSource::block_sum), model::to_string(model::AttnResSource::cumulative)},
      [&model](const std::string& text) { model.source = model::attn_res_source_from_string(text); },
      [&model] { return model::to_string(model.source); });
  keys.push_back(integer("model.attn_res.num_blocks", model.num_blocks, 1));
  keys.push_back(
      real_f32("model.attn_res.recency_bias", model.recency_bias, "a finite number", [](double) { return true; }));
}

void add_train_keys(std::vector<ConfigKey>& keys, TrainConfig::Train& train) {
  const auto positive = [](double x) { return x > 0; };
  const auto not_negative = [](double x) { return x >= 0; };
  const auto fraction = [](double x) { return x >= 0 && x <= 1; };
  const auto decay_rate = [](double x) { return x >= 0 && x < 1; };
  OptimizerSettings& optimizer = train.optimizer;
  TrainConfig::Schedule& schedule = train.schedule;

  keys.push_back(integer("train.steps", train.steps, 1, kMaxTokens));
  keys.push_back(integer("train.tokens_per_step", train.tokens_per_step, 1, kMaxTokens));
  keys.push_back(integer("train.micro_batch", train.micro_batch, 1, kMaxSequences));
  // The default rule is not written: runs from before this key existed compare equal to runs of today.
  ConfigKey rule = word("train.optimizer.rule", optimizer.rule, update_rule_names());
  rule.write = [&optimizer] { return optimizer.rule == OptimizerSettings{}.rule ? "" : optimizer.rule; };
  keys.push_back(rule);
  keys.push_back(real_f32("train.optimizer.learning_rate", optimizer.learning_rate, "a number above 0", positive));
  keys.push_back(real_f32("train.optimizer.beta1", optimizer.beta1, "a number in [0, 1)", decay_rate));
  keys.push_back(real_f32("train.optimizer.beta2", optimizer.beta2, "a number in [0, 1)", decay_rate));
  keys.push_back(real_f32("train.optimizer.eps", optimizer.eps, "a number above 0", positive));
  keys.push_back(
      real_f32("train.optimizer.weight_decay", optimizer.weight_decay, "a number of at least 0", not_negative));
  keys.push_back(word("train.schedule.kind", schedule.kind, {"cosine", "wsd", "constant"}));
  keys.push_back(integer("train.schedule.warmup_steps", schedule.warmup_steps, 0));
  keys.push_back(real_f32("train.schedule.final_fraction", schedule.final_fraction, "a number in [0, 1]", fraction));
  keys.push_back(real("train.schedule.decay_fraction", schedule.decay_fraction, "a number in [0, 1]", fraction));
  keys.push_back(real_f32("train.grad_clip", train.grad_clip, "a number of at least 0 (0: no clipping)", not_negative));
  keys.push_back(integer("train.non_finite.skip", train.non_finite.skip, 0));
  keys.push_back(integer("train.non_finite.roll_back", train.non_finite.roll_back, 0));
}

}  // namespace

void throw_config_error(const ConfigLeaf& leaf, const std::string& expected) {
  const std::string message = fmt::format("{}: {}: found {}, expected {}", leaf.where, data::shortened(leaf.path),
                                          describe(leaf.node), expected);
  if (leaf.command_line) throw data::UsageError("{}", message);
  throw data::Error("{}", message);
}

std::vector<ConfigKey> config_keys(TrainConfig& c) {
  const auto seconds = [](double x) { return x > 0 && x <= kMaxSeconds; };
  std::vector<ConfigKey> keys;
  keys.push_back(directory("run.dir", c.run.dir));
  keys.push_back(integer("run.seed", c.run.seed, 0));
  keys.push_back(word("device", c.device, {"auto", "cpu", "cuda"}));
  keys.push_back(word("precision", c.precision, {"auto", "f32", "bf16"}));
  add_model_keys(keys, c.model);
  keys.push_back(path_list("data.train", c.data.train, "a list of token shards"));
  keys.push_back(path_list("data.valid", c.data.valid, "a list of token shards"));
  keys.push_back(integer("data.sequence_length", c.data.sequence_length, 1, kMaxSequences));
  add_train_keys(keys, c.train);
  keys.push_back(integer("valid.every", c.valid.every, 0));
  keys.push_back(integer("valid.tokens", c.valid.tokens, 1, kMaxTokens));
  keys.push_back(integer("checkpoint.every", c.checkpoint.every, 0));
  keys.push_back(integer("checkpoint.log_spaced_until", c.checkpoint.log_spaced_until, 0));
  keys.push_back(all_or_count("checkpoint.keep", c.checkpoint.keep));
  keys.push_back(all_or_count("checkpoint.keep_state", c.checkpoint.keep_state));
  keys.push_back(word("checkpoint.weights_dtype", c.checkpoint.weights_dtype, {"f32", "bf16"}));
  keys.push_back(word("checkpoint.async", c.checkpoint.async, {"on", "off"}));
  keys.push_back(integer("routing.every", c.routing.every, 0));
  keys.push_back(integer("routing.log_spaced_until", c.routing.log_spaced_until, 0));
  keys.push_back(integer("routing.sequences", c.routing.sequences, 1, kMaxSequences));
  keys.push_back(integer("routing.per_token_every", c.routing.per_token_every, 0));
  keys.push_back(integer("distributed.zero", c.distributed.zero, 0, 1));
  keys.push_back(integer("distributed.bucket_mb", c.distributed.bucket_mb, 1, kMaxMebibytes));
  keys.push_back(real("distributed.timeout_seconds", c.distributed.timeout_seconds,
                      "a number of seconds above 0 and up to 1e9", seconds));
  keys.push_back(word("kernels.attention", c.kernels.attention, {"auto", "builtin", "cudnn"}));
  keys.push_back(word("kernels.reads", c.kernels.reads, {"auto", "fused", "two_phase"}));
  keys.push_back(word("kernels.recompute", c.kernels.recompute, {"auto", "none", "swiglu", "norms", "attention"}));
  keys.push_back(word("kernels.graph", c.kernels.graph, {"on", "off"}));
  keys.push_back(word("kernels.tune_products", c.kernels.tune_products, {"on", "off"}));
  return keys;
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string nearest_key(const std::string& path, const std::vector<ConfigKey>& keys) {
  const auto last_word = [](const std::string& p) { return p.substr(p.rfind('.') + 1); };
  std::string best;
  std::size_t best_distance = std::numeric_limits<std::size_t>::max();
  for (const ConfigKey& key : keys) {
    // The right last word in a wrong section counts as one mistake.
    const std::size_t distance =
        std::min(edit_distance(path, key.path), edit_distance(last_word(path), last_word(key.path)) + 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = key.path;
    }
  }
  return best;
}

}  // namespace routescope::train
