// The weights of a model directory: indexes and shards that contradict each other, heads that contradict the embedding,
// numbers that are none, and sizes that no file holds.
#include "model/files/weights.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/base/files.h"
#include "kernels/ops.h"
#include "tests/data/base/expect_error.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class WeightFilesTest : public ::testing::Test {
 protected:
  micro::TemporaryDirectory temporary;
  fs::path dir = temporary.path, index = dir / "model.safetensors.index.json";
  Model model{micro::config(micro::modes()[1]), {}};  // its head is tied to the embedding
  std::vector<SafetensorsItem> items;

  void SetUp() override {
    model.initialize(1);
    model.save(dir);
    for (const ParameterInfo& info : model.layout().all())
      items.push_back({info.name, info.shape, model.parameter(info.name), kernels::DType::f32});
  }
  void expect_refused(const std::vector<std::string>& parts) {
    data::expect_error([&] { Model::load(dir, {}); }, parts);
  }
  /// Two shards and their index, changed by `change`.
  void write_shards(const std::function<void(json& weight_map)>& change) {
    fs::remove(dir / "model.safetensors");
    json weight_map;
    const std::span<const SafetensorsItem> all = items;
    for (std::size_t i = 0; i < all.size(); ++i) weight_map[all[i].name] = i < 5 ? "a.safetensors" : "b.safetensors";
    write_safetensors(dir / "a.safetensors", all.first(5), {});
    write_safetensors(dir / "b.safetensors", all.subspan(5), {});
    change(weight_map);
    std::ofstream(index) << json{{"weight_map", weight_map}}.dump();
  }
};

TEST_F(WeightFilesTest, AnIndexAndItsShardsAgree) {
  const std::string first = items.front().name, last = items.back().name;
  write_shards([](json&) {});
  EXPECT_EQ(std::memcmp(Model::load(dir, {}).flat().data, model.flat().data, model.flat().bytes()), 0);
  write_shards([&](json& map) { map.erase(first); });
  expect_refused({first + ": found in a.safetensors, expected no such tensor by model.safetensors.index.json"});
  write_shards([&](json& map) { map["stranger"] = "b.safetensors"; });
  expect_refused({"b.safetensors: stranger: absent, expected it by model.safetensors.index.json"});
  write_shards([&](json& map) { map[first] = "b.safetensors"; });
  expect_refused({first + ": found in a.safetensors, expected it in b.safetensors"});
  write_shards([](json&) {});
  items.push_back(items.front());  // in both shards
  write_safetensors(dir / "b.safetensors", std::span(items).subspan(5), {});
  expect_refused({first + ": found in b.safetensors, expected it in a.safetensors"});
}

TEST_F(WeightFilesTest, AnIndexNamesFilesOfItsDirectory) {
  write_shards([](json&) {});
  const auto refused = [&](const std::string& text, const std::string& why) {
    std::ofstream(index) << text;
    expect_refused({"model.safetensors.index.json: ", why});
  };
  refused(R"({"weight_map": {}})", "weight_map: found {}, expected an object: tensor -> file");
  refused(R"({"weight_map": []})", "weight_map: found []");
  refused(R"({"weight_map": null})", "weight_map: found null");
  refused("{}", "weight_map: found nothing");
  refused("[]", "found [], expected a JSON object");
  refused("{", "not JSON: line 1");
  refused(R"({"weight_map": {"x": 3}})", "weight_map: x: found 3, expected a string");
  refused(R"({"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}})", "\"x\": found a second time");
  for (const char* name : {"", ".", "..", "../x", "/etc/passwd", "sub/x", "a.safetensors\\u0000.x"})
    refused(fmt::format(R"({{"weight_map": {{"x": "{}"}}}})", name),
            "expected the name of a file in the same directory");
}

TEST_F(WeightFilesTest, ATiedHeadEqualsTheEmbedding) {
  const SafetensorsItem embedding = items.front();
  ASSERT_EQ(embedding.name, "model.embed_tokens.weight");
  items.push_back({"lm_head.weight", embedding.shape, embedding.data, embedding.dtype});
  write_safetensors(dir / "model.safetensors", items, {});
  EXPECT_EQ(std::memcmp(Model::load(dir, {}).flat().data, model.flat().data, model.flat().bytes()), 0);
  kernels::OwnedTensor other(kernels::DType::f32, kernels::Device::cpu, {embedding.data.numel()});
  std::memcpy(other.tensor.data, embedding.data.data, embedding.data.bytes());
  other.tensor.as<float>()[9] = 0.5F;
  items.back().data = other.tensor;
  write_safetensors(dir / "model.safetensors", items, {});
  expect_refused({"model.safetensors: lm_head.weight: element 9: found 0.5, expected ", "config.json ties them"});
  items.back().shape = {embedding.shape[1], embedding.shape[0]};
  write_safetensors(dir / "model.safetensors", items, {});
  expect_refused({"lm_head.weight: found shape"});
}

TEST_F(WeightFilesTest, NumbersAreFiniteInTheTypeThatUsesThem) {
  kernels::OwnedTensor wide(kernels::DType::f64, kernels::Device::cpu, {items[1].data.numel()});
  kernels::cast(wide.tensor, items[1].data, {});
  items[1].data = wide.tensor;
  items[1].dtype = kernels::DType::f64;
  const auto refused = [&](double value, kernels::DType dtype) {
    wide.tensor.as<double>()[3] = value;
    items[1].dtype = dtype;
    write_safetensors(dir / "model.safetensors", items, {});
    expect_refused({"model.safetensors: " + items[1].name + ": element 3 is not finite"});
  };
  for (const auto dtype : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16}) {
    refused(std::numeric_limits<double>::quiet_NaN(), dtype);
    refused(-std::numeric_limits<double>::infinity(), dtype);
  }
  refused(1e39, kernels::DType::f64);
  const ModelOptions reference{.storage = kernels::DType::f64, .operands = kernels::DType::f64};
  EXPECT_EQ(Model::load(dir, reference).parameter(items[1].name).as<double>()[3], 1e39);  // f64 can hold it
}

TEST_F(WeightFilesTest, SizesAreHeldAgainstTheFilesBeforeMemoryIsTaken) {
  json config = json::parse(data::read_text(dir / "config.json"));
  struct rusage before {
  }, after{};
  ::getrusage(RUSAGE_SELF, &before);
  for (const auto& [key, value] : {std::pair{"num_hidden_layers", 4096}, {"vocab_size", 2'000'000'000}}) {
    json huge = config;
    huge[key] = value;
    std::ofstream(dir / "config.json") << huge.dump();
    expect_refused({"model.safetensors: model.", "expected"});
  }
  config["num_hidden_layers"] = 2147483647;
  std::ofstream(dir / "config.json") << config.dump();
  expect_refused({"config.json: num_hidden_layers: found 2147483647, expected 1 to 4096"});
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 200'000);  // kB
}

TEST_F(WeightFilesTest, AFileThatShrinksEndsInOneLine) {
  const SafetensorsReader reader(dir / "model.safetensors");
  fs::resize_file(dir / "model.safetensors", fs::file_size(dir / "model.safetensors") / 2);
  const std::string& last = reader.entries().back().name;
  kernels::OwnedTensor to(kernels::DType::f32, kernels::Device::cpu, {model.layout().at(last).size});
  data::expect_error([&] { reader.read(last, reader.entry(last).shape, to.tensor); },
                     {"model.safetensors: offset ", "shrank"});
}

TEST(SafetensorsHeader, StructureIsChecked) {
  const auto refused = [](const std::string& text, const std::string& why) {
    data::expect_error([&] { parse_safetensors_header(text, 8, "f"); }, {"f: ", why});
  };
  const std::string a = R"("a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})";
  const auto entry = [](const std::string& shape, const std::string& offsets) {
    return R"({"a": {"dtype": "F32", "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}";
  };
  const std::string b = R"("b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})";
  EXPECT_EQ(parse_safetensors_header("{" + b + "," + a + "}", 8, "f").entries.front().name, "a");  // by their data
  refused("{" + a + "," + a + "}", "\"a\": found a second time");
  refused("{" + a + "}", "found 8 bytes of data, expected 4 by the header");
  refused(R"({"__metadata__": {"x": 3}})", "__metadata__: x: found 3, expected a string");
  refused(R"({"__metadata__": []})", "__metadata__: found []");
  refused("[]", "header: found [], expected a JSON object");
  refused(std::string(80'000, '['), "nested deeper than 64");
  refused(entry("[2]", "[0, 8.0]"), "data_offsets[1]: found 8.0, expected an integer");
  refused(entry("[2]", "[0, 18446744073709551616]"), "data_offsets[1]: found 1.8446744073709552e+19");
  refused(entry("[2]", "[0, 1" + std::string(300, '0') + "]"), "data_offsets[1]: found 1e+300");
  refused(entry("[2]", "[0]"), "data_offsets: found [0]");
  refused(entry("[1e3]", "[0, 8]"), "shape: found [1000.0]");
  refused(entry("[1099511627776, 1099511627776]", "[0, 8]"), "overflows");
  refused(entry("2", "[0, 8]"), "shape: found 2, expected a list");
  const auto length = [](std::uint64_t value, std::uint64_t size) {
    const std::string first(reinterpret_cast<const char*>(&value), 8);
    return [=] { safetensors_header_length(first, size, "f"); };
  };
  data::expect_error(length(~std::uint64_t{0} - 7, 100), {"f: offset 0: header length 18446744073709551608"});
  data::expect_error(length(std::uint64_t{1} << 63, ~std::uint64_t{0}), {"expected at most 100000000"});
  data::expect_error(length(93, 100), {"header length 93, expected at most 92"});
}

}  // namespace
}  // namespace routescope::model
