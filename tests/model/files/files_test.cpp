// Model directories: reading gives what was written, and refuses files that contradict themselves.
#include "data/base/files.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/base/error.h"
#include "model/files/safetensors.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const data::Error& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

#define EXPECT_ERROR(body, part)                                             \
  do {                                                                       \
    const std::string message = message_of([&] { body; });                   \
    EXPECT_TRUE(contains(message, part)) << message << "\n  lacks " << part; \
    EXPECT_FALSE(contains(message, "\n")) << message;                        \
  } while (false)

class ModelFiles : public ::testing::Test {
 protected:
  micro::TemporaryDirectory temporary;
  fs::path dir = temporary.path;
};

TEST_F(ModelFiles, SaveAndLoadKeepsEveryBit) {
  for (const micro::Mode& mode : micro::modes()) {
    Model model(micro::config(mode), {});
    micro::randomize(model, 21);
    const fs::path where = dir / mode.name;
    fs::create_directory(where);
    model.save(where);
    const Model again = Model::load(where, {});
    EXPECT_EQ(again.config(), model.config()) << mode.name;
    EXPECT_EQ(std::memcmp(again.flat().data, model.flat().data, model.flat().bytes()), 0) << mode.name;
  }
}

TEST_F(ModelFiles, NamesAreThePublishedOnes) {
  const ParameterLayout cumulative(micro::config(micro::modes()[2])), block_sum(micro::config(micro::modes()[1]));
  EXPECT_EQ(cumulative.at("model.layers.3.mlp_res_proj.weight").shape, (std::vector<std::int64_t>{1, 8}));
  EXPECT_EQ(cumulative.at("model.layers.0.attn_res_norm.weight").shape, (std::vector<std::int64_t>{8}));
  EXPECT_TRUE(cumulative.at("model.layers.0.attn_res_bias").shape.empty());
  EXPECT_EQ(block_sum.at("model.final_res_proj.weight").shape, (std::vector<std::int64_t>{1, 8}));
  EXPECT_THROW(block_sum.at("model.layers.0.attn_res_bias"), std::out_of_range);
  EXPECT_THROW(cumulative.at("model.final_res_proj.weight"), std::out_of_range);
}

TEST_F(ModelFiles, InitializationDependsOnSeedAndNameOnly) {
  const ModelConfig config = micro::config(micro::modes()[1]);
  ModelConfig standard = config;
  standard.residual = Residual::standard;
  Model a(config, {}), b(standard, {}), c(config, {});
  a.initialize(5);
  b.initialize(5);
  c.initialize(6);
  // A routed model starts from the very weights of the standard one with its seed.
  for (const ParameterInfo& info : b.layout().all()) {
    const kernels::Tensor x = a.parameter(info.name), y = b.parameter(info.name), z = c.parameter(info.name);
    EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0) << info.name;
    EXPECT_EQ(std::memcmp(x.data, z.data, x.bytes()) == 0, info.initial != Initial::normal) << info.name;
  }
}

TEST_F(ModelFiles, MissingSourceKeyMeansPublishedCheckpoint) {
  json object = micro::config(micro::modes()[1]).to_json();
  object.erase("attnres_source");
  EXPECT_EQ(ModelConfig::from_json(object, "x").source, AttnResSource::cumulative);
}

// What the ecosystem takes where a config.json is silent, and the newer place of rope_theta.
TEST_F(ModelFiles, AbsentKeysMeanTheEcosystemsDefaults) {
  json object = micro::config(micro::modes()[1]).to_json();
  for (const char* key : {"rope_theta", "tie_word_embeddings", "attnres_recency_bias_init"}) object.erase(key);
  const ModelConfig config = ModelConfig::from_json(object, "x");
  EXPECT_EQ(config.rope_theta, 1e4);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.recency_bias, 3.0);
  object["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  EXPECT_EQ(ModelConfig::from_json(object, "x").rope_theta, 5e5);
}

TEST_F(ModelFiles, ConfigRefusesWhatItWouldComputeDifferently) {
  const json good = micro::config(micro::modes()[1]).to_json();
  const auto with = [&](const char* key, json value) {
    json changed = good;
    changed[key] = std::move(value);
    return [changed] { ModelConfig::from_json(changed, "config.json"); };
  };
  EXPECT_ERROR(with("rope_scaling", {{"rope_type", "yarn"}})(), "config.json: rope_scaling: rope_type: found \"yarn\"");
  EXPECT_ERROR(with("attention_bias", true)(), "attention_bias: found true, expected false");
  EXPECT_ERROR(with("hidden_act", "gelu")(), "hidden_act: found \"gelu\"");
  EXPECT_ERROR(with("attnres_gate_type", "sigmoid_scalar")(),
               "attnres_gate_type: found \"sigmoid_scalar\", expected \"bias\"");
  EXPECT_ERROR(with("attnres_mode", "delta")(), "attnres_mode: found \"delta\"");
  EXPECT_ERROR(with("hidden_size", "8")(), "hidden_size: found \"8\", expected an integer");
  EXPECT_ERROR(with("hidden_size", -8)(), "hidden_size: found -8, expected 1 to");
  EXPECT_ERROR(with("num_key_value_heads", 3)(),
               "num_attention_heads: found 2, expected a multiple of num_key_value_heads 3");
  EXPECT_ERROR(with("model_type", "llama")(), "model_type: found \"llama\", expected qwen3");
  EXPECT_ERROR(with("attnres_num_blocks", 0)(), "num_blocks: found 0, expected 1 to num_hidden_layers 4");
}

class Safetensors : public ModelFiles {
 protected:
  fs::path file = dir / "model.safetensors";
  Model model{micro::config(micro::modes()[1]), {}};

  void SetUp() override {
    model.initialize(1);
    model.save(dir);
  }
  void write(const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; }
  /// The file with its header changed by `change`; the data stay.
  void rewrite_header(const std::function<void(json&)>& change) {
    const std::string bytes = data::read_text(file);
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    json header = json::parse(bytes.substr(8, size));
    change(header);
    const std::string text = header.dump();
    const std::uint64_t length = text.size();
    write(std::string(reinterpret_cast<const char*>(&length), 8) + text + bytes.substr(8 + size));
  }
  void load() { Model::load(dir, {}); }
};

TEST_F(Safetensors, EveryTruncationIsRefused) {
  const std::string bytes = data::read_text(file);
  for (std::size_t keep :
       {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    write(bytes.substr(0, keep));
    EXPECT_ERROR(load(), "model.safetensors");
  }
  write(bytes + "x");
  EXPECT_ERROR(load(), "bytes of data, expected");
}

TEST_F(Safetensors, LyingHeadersAreRefused) {
  const std::string name = "model.norm.weight";
  const std::string intact = data::read_text(file);
  const auto expect = [&](const std::function<void(json&)>& change, const std::string& part) {
    write(intact);
    rewrite_header(change);
    EXPECT_ERROR(load(), part);
  };
  expect([&](json& h) { h[name]["shape"] = {9}; },
         "model.norm.weight: data_offsets: found 32 bytes, expected 36 for F32 [9]");
  expect([&](json& h) { h[name]["dtype"] = "F16"; }, "dtype: found F16, expected F64, F32 or BF16");
  expect([&](json& h) { h[name]["data_offsets"][1] = 1u << 30; }, "expected a range within the");
  expect([&](json& h) { h[name]["data_offsets"] = {8, 4}; }, "data_offsets: found [8,4]");
  expect([&](json& h) { h[name]["shape"] = {-1}; }, "shape: found [-1]");
  expect([&](json& h) { h[name]["shape"] = {1ull << 40, 1ull << 40}; }, "overflows");
  expect([&](json& h) { h["model.twin.weight"] = h[name]; }, "neither overlap nor leave gaps");
  expect([&](json& h) { h.erase(name); }, "neither overlap nor leave gaps");
  expect([&](json& h) { h["stranger"] = h[name], h.erase(name); },
         "stranger: a tensor that a model of this config.json does not have");
  expect([&](json& h) { h[name] = 3; }, "expected an object with dtype, shape and data_offsets");
  write(std::string("\x05\0\0\0\0\0\0\0", 8) + "hello");
  EXPECT_ERROR(load(), "header: not JSON: line 1, column 1");
}

TEST_F(Safetensors, ShapesAreHeldAgainstTheConfig) {
  json config = json::parse(data::read_text(dir / "config.json"));
  config["vocab_size"] = 14;
  std::ofstream(dir / "config.json") << config.dump();
  EXPECT_ERROR(load(), "model.embed_tokens.weight: found shape [13, 8], expected [14, 8]");
}

TEST_F(Safetensors, ShardedDirectoriesLoad) {
  std::vector<SafetensorsItem> first, second;
  json weight_map;
  for (const ParameterInfo& info : model.layout().all()) {
    const bool early = info.offset < model.layout().total() / 2;
    (early ? first : second).push_back({info.name, info.shape, model.parameter(info.name), kernels::DType::f32});
    weight_map[info.name] = early ? "a.safetensors" : "b.safetensors";
  }
  write_safetensors(dir / "a.safetensors", first, {});
  write_safetensors(dir / "b.safetensors", second, {});
  std::ofstream(dir / "model.safetensors.index.json") << json{{"weight_map", weight_map}}.dump();
  fs::remove(file);
  const Model again = Model::load(dir, {});
  EXPECT_EQ(std::memcmp(again.flat().data, model.flat().data, model.flat().bytes()), 0);
  fs::remove(dir / "b.safetensors");
  EXPECT_ERROR(load(), "b.safetensors: cannot open: No such file");
}

// Elements are converted a million at a time.
TEST_F(Safetensors, LargeTensorsAreConvertedPieceByPiece) {
  constexpr std::int64_t count = (std::int64_t{2} << 20) + 3;
  kernels::OwnedTensor written(kernels::DType::f32, kernels::Device::cpu, {count});
  kernels::OwnedTensor again(kernels::DType::f64, kernels::Device::cpu, {count});
  for (std::int64_t i = 0; i < count; ++i) written.tensor.as<float>()[i] = static_cast<float>(i);
  for (const kernels::DType stored : {kernels::DType::f32, kernels::DType::f64}) {
    const SafetensorsItem item{"large", {count}, written.tensor, stored};
    write_safetensors(file, {&item, 1}, {});
    SafetensorsReader(file).read("large", {count}, again.tensor);
    for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(again.tensor.as<double>()[i], static_cast<double>(i));
  }
}

TEST_F(Safetensors, NumbersThatBf16CannotHoldAreNotWritten) {
  kernels::OwnedTensor values(kernels::DType::f32, kernels::Device::cpu, {3});
  const SafetensorsItem item{"large", {3}, values.tensor, kernels::DType::bf16};
  const std::string before = data::read_text(file);
  for (const float largest : {3.3895e38F, -3.3895e38F}) {
    values.tensor.as<float>()[1] = largest;
    EXPECT_NO_THROW(write_safetensors(dir / "fits", {&item, 1}, {}));
  }
  for (const float beyond : {3.4e38F, -3.4e38F}) {
    values.tensor.as<float>()[1] = beyond;
    try {
      write_safetensors(file, {&item, 1}, {});
      FAIL() << "written";
    } catch (const data::Error& error) {
      EXPECT_NE(std::string(error.what()).find("large: found a number beyond 3.39e38"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_EQ(data::read_text(file), before);
}

TEST_F(Safetensors, Bf16IsRoundedOnWritingAndReadExactly) {
  std::vector<SafetensorsItem> items;
  for (const ParameterInfo& info : model.layout().all())
    items.push_back({info.name, info.shape, model.parameter(info.name), kernels::DType::bf16});
  write_safetensors(file, items, {});
  const Model again = Model::load(dir, {});
  double worst = 0;
  for (std::int64_t i = 0; i < model.layout().total(); ++i) {
    const double a = model.flat().as<float>()[i], b = again.flat().as<float>()[i];
    worst = std::max(worst, std::abs(a - b) / std::max(std::abs(a), 1e-30));
  }
  EXPECT_GT(worst, 0.0);
  EXPECT_LE(worst, 1.0 / 256);  // half a unit in the last of 8 bits
}

}  // namespace
}  // namespace routescope::model
