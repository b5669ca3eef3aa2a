// routescope-model from the outside: what a person types, what comes back, and that bad input leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "data/hdf5/file.h"
#include "kernels/device.h"
#include "tests/model/pass/micro.h"
#include "tests/places.h"

namespace routescope::model {
namespace {

namespace fs = std::filesystem;

struct Result {
  int status;
  std::string output;  // stdout and stderr
};

class ModelTool : public ::testing::Test {
 protected:
  micro::TemporaryDirectory temporary;
  fs::path dir = temporary.path;

  Result run(const std::string& arguments) const {
    const std::string command =
        "cd " + dir.string() + " && " + testing::bin_dir() + "/routescope-model " + arguments + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string output;
    std::array<char, 4096> buffer;
    while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
    const int status = ::pclose(pipe);
    return {WEXITSTATUS(status), output};
  }
  void init(const std::string& name, const std::string& more) const {
    const Result result =
        run("init --set vocab_size=17 --set hidden_size=16 --set intermediate_size=24 --set num_hidden_layers=4 --set "
            "num_attention_heads=2 --set num_key_value_heads=1 --set head_dim=8 --out " +
            name + " " + more);
    ASSERT_EQ(result.status, 0) << result.output;
  }
  /// One line that holds `part`, the given status, and no file or directory but those that were there.
  void expect_refused(const std::string& arguments, int status, const std::string& part) const {
    std::vector<fs::path> before, after;
    for (const auto& entry : fs::recursive_directory_iterator(dir)) before.push_back(entry.path());
    const Result result = run(arguments);
    for (const auto& entry : fs::recursive_directory_iterator(dir)) after.push_back(entry.path());
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
    EXPECT_EQ(before.size(), after.size()) << "debris after: " << arguments;
  }
};

TEST_F(ModelTool, InitWrapDumpEvalExportImport) {
  init("standard", "");
  init("blocks", "--residual block_attn_res --num-blocks 2");
  EXPECT_EQ(run("wrap --model standard --bias 3 --num-blocks 2 --out wrapped --tokens 1,2,3,4").status, 0);
  EXPECT_EQ(run("dump --model wrapped --tokens 1,2,3,4 --out w.h5 --grads").status, 0);
  const data::hdf5::File file = data::hdf5::File::open(dir / "w.h5");
  EXPECT_EQ(file.dataset("alpha").shape(), (data::hdf5::Shape{8, 1, 4, 3}));
  EXPECT_EQ(file.dataset("grad/model.layers.0.attn_res_bias").shape(), data::hdf5::Shape{});
  EXPECT_EQ(file.dataset("grad/model.layers.0.attn_res_proj.weight").shape(), (data::hdf5::Shape{1, 16}));
  EXPECT_EQ(file.dataset("nll").shape(), (data::hdf5::Shape{1, 3}));
  // A dump's own tokens are a token file.
  EXPECT_EQ(run("eval --model blocks --tokens w.h5").status, 0);
  EXPECT_EQ(run("export --model blocks --dtype bf16 --out half").status, 0);
  EXPECT_EQ(run("import --model half --out back").status, 0);
  EXPECT_LT(fs::file_size(dir / "half/model.safetensors"), fs::file_size(dir / "back/model.safetensors"));
  EXPECT_EQ(run("dump --model half --tokens 1,2,3 --out half.h5").status, 0);
}

TEST_F(ModelTool, LogitBiasMasks) {
  init("blocks", "--residual block_attn_res --num-blocks 2");
  const auto write = [&](std::int64_t reads, double everywhere) {
    data::hdf5::File file = data::hdf5::File::create(dir / "bias.h5");
    std::vector<double> table(static_cast<std::size_t>(reads * 3), 0.0);
    for (std::size_t r = 1; r < static_cast<std::size_t>(reads); ++r)
      table[3 * r + 2] = -INFINITY, table[3 * r] = everywhere;
    file.write("logit_bias", table, {reads, 3});
  };
  write(9, 0.0);
  EXPECT_EQ(run("dump --model blocks --tokens 1,2,3 --out d.h5 --logit-bias bias.h5").status, 0);
  const std::vector<float> alpha = data::hdf5::File::open(dir / "d.h5").read<float>("alpha");
  EXPECT_EQ(alpha[3 * 3 * 3 + 2], 0.0f);  // read 3, token 0, current
  write(9, -INFINITY);
  expect_refused("dump --model blocks --tokens 1,2,3 --out e.h5 --logit-bias bias.h5", 1,
                 "[0.mlp]: every source is masked");
  write(8, 0.0);
  expect_refused("dump --model blocks --tokens 1,2,3 --out e.h5 --logit-bias bias.h5", 1,
                 "expected [read, source] = [9, 3]");
}

TEST_F(ModelTool, BadInputEndsInOneLine) {
  init("m", "");
  expect_refused("dump --model nowhere --tokens 1,2 --out d.h5", 1, "nowhere/config.json: ");
  expect_refused("dump --model m --tokens 1,17 --out d.h5", 1, "token 1: found id 17, expected 0 to 16");
  expect_refused("dump --model m --tokens missing.bin --out d.h5", 1, "missing.bin");
  expect_refused("dump --model m --tokens 1,,2 --out d.h5", 1, "expected comma-separated ids");
  expect_refused("dump --model m --tokens 1,2 --out no/such/d.h5", 1, "no/such");
  expect_refused("dump --model m --tokens 1 --grads --out d.h5", 1, "expected at least 2");
  expect_refused("init --set num_attention_heads=3 --out x", 1, "num_attention_heads: found 3, expected a multiple");
  expect_refused("init --set hidden=3 --out x", 1, "unknown model key 'hidden'");
  expect_refused("init --preset qwen9 --out x", 1, "preset: found 'qwen9', expected one of qwen3_0.6b");
  expect_refused("init --out m", 1, "m: exists already");
  expect_refused("wrap --model m --bias 1", 2, "expected --out, --tokens or both");
  if (!kernels::cuda_available())
    expect_refused("dump --model m --tokens 1,2 --out d.h5 --device cuda", 1, "--device: found cuda, expected cpu: ");
  std::ofstream(dir / "m/config.json") << "{";
  expect_refused("eval --model m --tokens 1,2", 1, "m/config.json: not JSON: line 1, column 2");
}

TEST_F(ModelTool, UsageErrorsExitWithTwo) {
  EXPECT_EQ(run("").status, 2);
  EXPECT_EQ(run("dump --model x").status, 2);
  EXPECT_EQ(run("init --residual none --out x").status, 2);
  EXPECT_EQ(run("--help").status, 0);
}

}  // namespace
}  // namespace routescope::model
