// config.json means what it means to transformers (5.23.0), or is refused by name.
#include "model/files/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/data/base/expect_error.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

using nlohmann::json;

/// Of a standard model with 4 heads of 8, without the keys that may be absent.
json least() {
  return {{"model_type", "qwen3"},  {"vocab_size", 61},         {"hidden_size", 16},        {"intermediate_size", 24},
          {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 8}};
}

ModelConfig with(const std::string& key, const json& value) {
  json object = least();
  object[key] = value;
  return ModelConfig::parse(object.dump(), "config.json");
}
void expect_refused(const std::string& key, const json& value, const std::string& found) {
  data::expect_error([&] { with(key, value); }, {"config.json: " + key + ": " + found, "expected "});
}

TEST(ModelConfigJson, AbsentKeysAreTransformersDefaults) {
  const ModelConfig config = ModelConfig::parse(least().dump(), "config.json");
  EXPECT_EQ(config.rope_theta, 1e4);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_EQ(config.initializer_range, 0.02);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_TRUE(config.eos_token_id.empty());
  json object = least();
  object["num_attention_heads"] = 64;
  object.erase("num_key_value_heads");
  object.erase("head_dim");
  EXPECT_EQ(ModelConfig::parse(object.dump(), "x").num_key_value_heads, 32);
  EXPECT_EQ(ModelConfig::parse(object.dump(), "x").head_dim, 128);
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "model_type"}) {
    object = least();
    object.erase(key);
    data::expect_error([&] { ModelConfig::parse(object.dump(), "config.json"); }, {"config.json: ", key});
  }
}

TEST(ModelConfigJson, NullsMeanWhatTheyMeanToTransformers) {
  EXPECT_EQ(with("num_key_value_heads", nullptr).num_key_value_heads, 4);
  for (const char* key : {"rope_scaling", "rope_parameters", "sliding_window", "layer_types", "eos_token_id",
                          "bos_token_id", "partial_rotary_factor", "quantization_config"})
    EXPECT_EQ(with(key, nullptr), ModelConfig::parse(least().dump(), "x")) << key;
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "head_dim", "max_position_embeddings", "rms_norm_eps", "initializer_range", "rope_theta",
                          "tie_word_embeddings", "hidden_act", "model_type"})
    expect_refused(key, nullptr, "found null");
}

TEST(ModelConfigJson, RotaryParametersHaveTransformersPrecedence) {
  json object = least();
  object["rope_theta"] = 1e5;
  const auto theta = [&](const char* key, const json& value) {
    json changed = object;
    changed[key] = value;
    return ModelConfig::parse(changed.dump(), "x").rope_theta;
  };
  EXPECT_EQ(theta("rope_parameters", json::object()), 1e5);
  EXPECT_EQ(theta("rope_parameters", {{"rope_type", "default"}}), 1e5);
  EXPECT_EQ(theta("rope_parameters", {{"rope_theta", 5e5}}), 5e5);
  EXPECT_EQ(theta("rope_scaling", {{"type", "default"}, {"rope_theta", 3e3}}), 3e3);
  object["rope_parameters"] = {{"rope_theta", 1e6}};
  data::expect_error(
      [&] {
        theta("rope_scaling", {{"rope_theta", 3e3}});
      },
      {"rope_scaling: found ", "rope_parameters"});
  data::expect_error(
      [&] {
        with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}});
      },
      {"rope_scaling: type: found \"linear\""});
  data::expect_error([&] { with("rope_scaling", {{"rope_type", 3}}); }, {"rope_scaling: rope_type: found 3"});
  data::expect_error([&] { with("rope_parameters", {{"rope_type", nullptr}}); }, {"rope_type: found null"});
  data::expect_error([&] { with("rope_parameters", {{"rope_theta", nullptr}}); }, {"rope_theta: found null"});
  data::expect_error(
      [&] {
        with("rope_parameters", {{"full_attention", {{"rope_theta", 2.0}}}});
      },
      {"rope_parameters: full_attention: found "});
  expect_refused("rope_parameters", "x", "found \"x\"");
  expect_refused("partial_rotary_factor", 0.5, "found 0.5");
  data::expect_error(
      [&] {
        with("rope_parameters", {{"partial_rotary_factor", 0.5}});
      },
      {"rope_parameters: partial_rotary_factor: found 0.5"});
}

TEST(ModelConfigJson, OtherModelsAreRefusedByName) {
  EXPECT_EQ(with("layer_types", {"full_attention", "full_attention"}).num_hidden_layers, 2);
  expect_refused("layer_types", {"full_attention", "sliding_attention"}, "found [");
  expect_refused("layer_types", {"full_attention"}, "found [");
  expect_refused("use_sliding_window", true, "found true");
  expect_refused("attention_dropout", 0.1, "found 0.1");
  expect_refused("quantization_config", {{"quant_method", "fp8"}}, "found {");
  expect_refused("hidden_act", "gelu", "found \"gelu\"");
  expect_refused("model_type", 3, "found 3");
  expect_refused("tie_word_embeddings", "true", "found \"true\"");
  expect_refused("tie_word_embeddings", 1, "found 1");
}

TEST(ModelConfigJson, SpecialTokensAreKept) {
  EXPECT_EQ(with("eos_token_id", 7).to_json().at("eos_token_id"), 7);
  EXPECT_EQ(with("eos_token_id", {7, 9}).to_json().at("eos_token_id"), json({7, 9}));
  expect_refused("eos_token_id", 1.5, "found 1.5");
  expect_refused("bos_token_id", "x", "found \"x\"");
}

TEST(ModelConfigJson, NumbersFitTheTypeThatUsesThem) {
  for (const json& value : {json(1e-50), json(0.0), json(-1e-6), json(1), json(1e300), json("1e-6")})
    expect_refused("rms_norm_eps", value, "found ");
  for (const json& value : {json(1e39), json(1.0), json(-5), json(0)}) expect_refused("rope_theta", value, "found ");
  for (const json& value : {json(1e-50), json(1e39), json(-0.02)}) expect_refused("initializer_range", value, "found ");
  EXPECT_EQ(with("rope_theta", 1000000).rope_theta, 1e6);
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim"}) {
    expect_refused(key, -1, "found -1");
    expect_refused(key, 0, "found 0");
    expect_refused(key, 8.0, "found 8.0");
    expect_refused(key, std::uint64_t{1} << 63, "found 9223372036854775808");
    expect_refused(key, std::int64_t{1} << 31, "found 2147483648");
    expect_refused(key, 1e300, "found 1e+300");
  }
  expect_refused("num_hidden_layers", 2147483647, "found 2147483647, expected 1 to 4096");
  json object = least();
  object["vocab_size"] = object["hidden_size"] = object["intermediate_size"] = 2147483647;
  data::expect_error([&] { ModelConfig::parse(object.dump(), "config.json"); },
                     {"config.json: found sizes of a model"});
  object["num_attention_heads"] = object["num_key_value_heads"] = 2147483647;
  object["head_dim"] = 2147483646;
  data::expect_error([&] { ModelConfig::parse(object.dump(), "config.json"); },
                     {"config.json: found sizes of a model"});

  json routed = micro::config(micro::modes()[1]).to_json();
  routed["attnres_recency_bias_init"] = 1e39;
  data::expect_error([&] { ModelConfig::from_json(routed, "x"); }, {"recency_bias: found 1e+39"});
  routed["attnres_recency_bias_init"] = "3";
  data::expect_error([&] { ModelConfig::from_json(routed, "x"); }, {"attnres_recency_bias_init: found \"3\""});
  routed["attnres_recency_bias_init"] = 3;
  routed["attnres_num_blocks"] = 2.5;
  data::expect_error([&] { ModelConfig::from_json(routed, "x"); }, {"attnres_num_blocks: found 2.5"});
}

TEST(ModelConfigJson, TextsThatAreNoConfigAreRefused) {
  const auto refused = [](const std::string& text, const std::string& why) {
    data::expect_error([&] { ModelConfig::parse(text, "config.json"); }, {"config.json: " + why});
  };
  refused("", "not JSON: line 1");
  refused("[]", "found [], expected a JSON object");
  refused("{\"rms_norm_eps\": 1e999}", "not JSON: number overflow");
  refused("{\"model_type\": \"qwen3\", \"model_type\": \"qwen3\"}", "\"model_type\": found a second time");
  refused(std::string(80'000, '['), "found brackets nested deeper than 64");
}

}  // namespace
}  // namespace routescope::model
