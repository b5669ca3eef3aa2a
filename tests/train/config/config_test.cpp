// The configuration: reading, errors and their messages, and that the written file reads back to the same run.
#include "train/config/config.h"

#include <gtest/gtest.h>

#include "data/base/error.h"
#include "data/base/files.h"
#include "tests/places.h"
#include "tests/train/run/micro_run.h"
#include "train/config/config_keys.h"

namespace routescope::train {
namespace {

class Config : public ::testing::Test {
 protected:
  static constexpr const char* kBase =
      "run: {dir: runs/a}\n"
      "data: {train: [a.bin], valid: b.bin, sequence_length: 128}\n"
      "train: {steps: 10, tokens_per_step: 1024, micro_batch: 4}\n"
      "valid: {tokens: 256}\n";

  TrainConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    data::write_text_atomically(directory_ / "c.yaml", text);
    return load_config(directory_ / "c.yaml", overrides);
  }
  std::string message(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    try {
      load(text, overrides);
    } catch (const data::Error& error) {
      std::string what = error.what();
      const std::string prefix = directory_.path().string() + "/";
      if (what.starts_with(prefix)) what.erase(0, prefix.size());
      return what;
    }
    return "(no error)";
  }

  testing::TemporaryDirectory directory_;
};

TEST_F(Config, DefaultsPresetsAndOverrides) {
  const TrainConfig c =
      load(std::string(kBase) + "model: {hidden_size: 512, preset: qwen3_0.6b, residual: block_attn_res}\n",
           {"train.optimizer.learning_rate=1e-3", "model.num_hidden_layers=16", "data={train: [x, y]}"});
  EXPECT_EQ(c.model.hidden_size, 512);  // although the preset comes after it
  EXPECT_EQ(c.model.intermediate_size, 3072);
  EXPECT_EQ(c.model.num_hidden_layers, 16);
  EXPECT_EQ(c.model.residual, model::Residual::block_attn_res);
  EXPECT_EQ(c.train.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(c.data.train, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(c.data.valid, (std::vector<std::string>{"b.bin"}));
  EXPECT_EQ(c.checkpoint.keep, 0);
  EXPECT_EQ(c.sequences_per_step(), 8);
}

TEST_F(Config, TheWrittenFileReadsBackToTheSameRun) {
  TrainConfig c =
      load(std::string(kBase) +
               "checkpoint: {keep: 3}\nmodel: {residual: block_attn_res, rms_norm_eps: 1e-5, attn_res: {recency_bias: "
               "0.1}}\n",
           {"run.dir='runs/with: colon and \"quote\"'", "train.optimizer.eps=3e-9", "data.train=[a-*.bin, '1']"});
  resolve_backend(c);
  EXPECT_NE(c.device, "auto");
  const std::string yaml = to_yaml(c);
  const TrainConfig again = load(yaml);
  EXPECT_EQ(config_values(again), config_values(c));
  EXPECT_EQ(to_yaml(again), yaml);
  EXPECT_EQ(again.run.dir, c.run.dir);
  EXPECT_EQ(again.data.train, c.data.train);
  EXPECT_EQ(again.model, c.model);
  EXPECT_EQ(again.train.optimizer.eps, 3e-9);
}

// Records and run directories from before the key existed compare equal to those of today.
TEST_F(Config, TheDefaultUpdateRuleIsNotWritten) {
  EXPECT_EQ(load(kBase).train.optimizer.rule, "adamw");
  EXPECT_EQ(load(kBase, {"train.optimizer.rule=adamw"}).train.optimizer.rule, "adamw");
  EXPECT_EQ(to_yaml(load(kBase)).find("rule:"), std::string::npos);
  EXPECT_EQ(message(kBase, {"train.optimizer.rule=adam"}),
            "command line: train.optimizer.rule: found 'adam', expected one of adamw");
  TrainConfig other = load(kBase);
  other.train.optimizer.rule = "another";
  EXPECT_NE(to_yaml(other).find("    rule: another\n"), std::string::npos);
}

TEST_F(Config, UnknownKeysNameTheNearestKnownOne) {
  EXPECT_EQ(message(std::string(kBase) + "checkpoint:\n  evry: 5\n"),
            "c.yaml:6: checkpoint.evry: unknown key; the nearest known one is checkpoint.every");
  EXPECT_EQ(message(std::string(kBase) + "model: {hiden_size: 64}\n"),
            "c.yaml:5: model.hiden_size: unknown key; the nearest known one is model.hidden_size");
  EXPECT_EQ(message(std::string(kBase) + "model: {num_blocks: 4}\n"),
            "c.yaml:5: model.num_blocks: unknown key; the nearest known one is model.attn_res.num_blocks");
  EXPECT_EQ(message(kBase, {"train.learning_rate=1"}),
            "command line: train.learning_rate: unknown key; the nearest known one is train.optimizer.learning_rate");
  EXPECT_EQ(message(std::string(kBase) + "sed: 3\n"), "c.yaml:5: sed: unknown key; the nearest known one is run.seed");
}

TEST_F(Config, WrongValuesNameKeyFoundAndExpected) {
  EXPECT_EQ(message(kBase, {"valid={every: often}"}),
            "command line: valid.every: found 'often', expected an integer of at least 0");
  EXPECT_EQ(message(kBase, {"train.steps=1.5"}),
            "command line: train.steps: found '1.5', expected an integer of at least 1");
  EXPECT_EQ(message(kBase, {"train.steps='5'"}),
            "command line: train.steps: found \"5\", expected an integer of at least 1");
  EXPECT_EQ(message(kBase, {"train.steps=0"}),
            "command line: train.steps: found '0', expected an integer of at least 1");
  EXPECT_EQ(message(kBase, {"train.optimizer.beta2=1"}),
            "command line: train.optimizer.beta2: found '1', expected a number in [0, 1)");
  EXPECT_EQ(message(kBase, {"train.optimizer.learning_rate=nan"}),
            "command line: train.optimizer.learning_rate: found 'nan', expected a number above 0");
  EXPECT_EQ(message(kBase, {"train.schedule.kind=linear"}),
            "command line: train.schedule.kind: found 'linear', expected one of cosine, wsd, constant");
  EXPECT_EQ(message(kBase, {"checkpoint.keep_state=0"}),
            "command line: checkpoint.keep_state: found '0', expected all, or an integer of at least 1");
  EXPECT_EQ(message(kBase, {"checkpoint.weights_dtype=f16", "checkpoint.keep_state=1"}),
            "command line: checkpoint.weights_dtype: found 'f16', expected one of f32, bf16");
  EXPECT_EQ(message(kBase, {"checkpoint.weights_dtype=bf16"}),
            "command line: checkpoint.weights_dtype: found bf16, expected f32 as long as checkpoint.keep_state is all");
  EXPECT_EQ(message(kBase, {"checkpoint.keep=none"}),
            "command line: checkpoint.keep: found 'none', expected all, or an integer of at least 1");
  EXPECT_EQ(message(kBase, {"data.train=[]"}),
            "command line: data.train: found a list of 0, expected a list of token shards");
  EXPECT_EQ(message(kBase, {"model.hidden_size=wide"}),
            "command line: model: hidden_size: found \"wide\", expected an integer");
  EXPECT_EQ(message(kBase, {"model.residual=block"}),
            "command line: model.residual: found 'block', expected one of standard, block_attn_res, full_attn_res");
  EXPECT_TRUE(message(kBase, {"model=qwen3_0.6b"})
                  .starts_with("command line: model: found 'qwen3_0.6b', expected a mapping with keys among preset, "));
}

TEST_F(Config, NumbersThatVanishOrOverflowInTheirTypeAreRefused) {
  const char* held = " that f32 can hold (a size between 1.18e-38 and 3.4e+38)";
  EXPECT_EQ(message(kBase, {"train.optimizer.eps=1e-46"}),
            std::string("command line: train.optimizer.eps: found '1e-46', expected a number above 0") + held);
  for (const char* key : {"eps", "learning_rate", "weight_decay"})
    for (const char* value : {"1e-39", "1e39", "4e38"})
      EXPECT_NE(message(kBase, {fmt::format("train.optimizer.{}={}", key, value)}).find(held), std::string::npos)
          << key << " " << value;
  EXPECT_NE(message(kBase, {"train.grad_clip=1e300"}).find(held), std::string::npos);
  EXPECT_NE(
      message(std::string(kBase) + "model: {residual: block_attn_res, attn_res: {recency_bias: -1e39}}\n").find(held),
      std::string::npos);
  // 1 - beta is used in f32, and becomes 0.
  EXPECT_EQ(message(kBase, {"train.optimizer.beta1=0.999999999999"}),
            "command line: train.optimizer.beta1: found '0.999999999999', expected a number in [0, 1) also when it is "
            "rounded to f32");
  EXPECT_NE(message(kBase, {"train.optimizer.weight_decay=1e30", "train.optimizer.learning_rate=1e30"})
                .find("train.optimizer.weight_decay: found 1e+30, expected a product with learning_rate"),
            std::string::npos);
  EXPECT_EQ(load(kBase, {"train.optimizer.weight_decay=0", "train.grad_clip=0"}).train.grad_clip, 0);

  EXPECT_EQ(message(kBase, {"train.steps=9999999999999999"}),
            "command line: train.steps: found '9999999999999999', expected an integer between 1 and 9007199254740992");
  EXPECT_NE(message(kBase, {"train.steps=9007199254740992"}).find("expected at most 9007199254740991 steps"),
            std::string::npos)
      << message(kBase, {"train.steps=9007199254740992"});
  for (const char* text : {"run.seed=99999999999999999999999", "run.seed=-1", "run.seed=0x10", "run.seed=1e3",
                           "run.seed=", "run.seed=+5", "run.seed=5.0", "run.seed=1_000"})
    EXPECT_NE(message(kBase, {text}).find("expected an integer of at least 0"), std::string::npos) << text;
  EXPECT_EQ(load(kBase, {"run.seed=010"}).run.seed, 10);
}

TEST_F(Config, HomeAndVariablesInPathsAreExpanded) {
  ::setenv("ROUTESCOPE_TEST_SCRATCH", "/scratch/me", 1);
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  EXPECT_EQ(load(kBase, {"run.dir=$ROUTESCOPE_TEST_SCRATCH/x"}).run.dir, "/scratch/me/x");
  EXPECT_EQ(load(kBase, {"run.dir=${ROUTESCOPE_TEST_SCRATCH}/x"}).run.dir, "/scratch/me/x");
  EXPECT_EQ(load(kBase, {"run.dir=~/x"}).run.dir, home + "/x");
  EXPECT_EQ(load(kBase, {"data.train=['~/a-*.bin', $ROUTESCOPE_TEST_SCRATCH/b.bin]"}).data.train,
            (std::vector<std::string>{home + "/a-*.bin", "/scratch/me/b.bin"}));
  EXPECT_EQ(load(kBase, {"data.valid=~/v.bin"}).data.valid, std::vector<std::string>{home + "/v.bin"});
  for (const char* key : {"run.dir", "data.train", "data.valid"}) {
    const std::string refused = message(kBase, {std::string(key) + "=$ROUTESCOPE_TEST_ABSENT/x"});
    EXPECT_NE(refused.find(key), std::string::npos) << refused;
    EXPECT_NE(refused.find("ROUTESCOPE_TEST_ABSENT"), std::string::npos) << refused;
    EXPECT_NE(message(kBase, {std::string(key) + "=\"caf\xe9\""}).find("UTF-8"), std::string::npos) << key;
  }
}

TEST_F(Config, ConditionsBetweenKeys) {
  EXPECT_EQ(message(kBase, {"train.tokens_per_step=1000"}),
            "command line: train.tokens_per_step: found 1000, expected a multiple of data.sequence_length * "
            "train.micro_batch = 128 * 4");
  EXPECT_EQ(message(kBase, {"train.schedule.warmup_steps=11"}),
            "command line: train.schedule.warmup_steps: found 11, expected at most train.steps = 10");
  EXPECT_EQ(
      message(kBase, {"train.schedule.kind=wsd", "train.schedule.warmup_steps=6", "train.schedule.decay_fraction=0.5"}),
      "command line: train.schedule.decay_fraction: found 0.5, expected at most 0.4 (warm-up and decay overlap)");
  EXPECT_EQ(message(kBase, {"valid.tokens=127"}),
            "command line: valid.tokens: found 127, expected at least data.sequence_length = 128");
  EXPECT_EQ(message(kBase, {"model.max_position_embeddings=64"}),
            "c.yaml:2: data.sequence_length: found 128, expected at most model.max_position_embeddings = 64");
  EXPECT_EQ(message(kBase, {"model.num_key_value_heads=3"}),
            "c.yaml: model: num_attention_heads: found 16, expected a multiple of num_key_value_heads 3");
}

TEST_F(Config, MissingAndDuplicateKeysAndTextThatIsNotYaml) {
  EXPECT_EQ(message("run: {dir: a}\n"), "c.yaml: data.train: found nothing, expected a value (it has no default)");
  EXPECT_EQ(message(std::string(kBase) + "train: {steps: 3}\n"),
            "c.yaml:5: train: found a second time, expected once (first on line 3)");
  EXPECT_TRUE(message("run: [\n").starts_with("c.yaml:2: not YAML: "));
  EXPECT_TRUE(message("just text\n").starts_with("c.yaml: found no keys, expected a YAML mapping"));
  EXPECT_EQ(message(kBase, {"train.steps"}), "command line: found 'train.steps', expected key.path=value");
  EXPECT_THROW(load(kBase, {"train.steps"}), data::UsageError);
  EXPECT_THROW(load(kBase, {"train.stps=4"}), data::UsageError);
  EXPECT_THROW(load_config(directory_ / "absent.yaml", {}), data::Error);
}

TEST_F(Config, CudaIsRefusedWithoutADevice) {
  if (kernels::cuda_available()) GTEST_SKIP() << "this machine has a CUDA device";
  TrainConfig c = load(kBase, {"device=cuda"});
  EXPECT_THROW(resolve_backend(c), data::Error);
}

TEST(ShippedConfigs, AllLoad) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_dir() + "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW(load_config(entry.path(), {})) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 5u);
}

TEST(EditDistance, KnownValues) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
}

}  // namespace
}  // namespace routescope::train
