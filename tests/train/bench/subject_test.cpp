// What a benchmark times is a step that trains.
#include "train/bench/step/subject.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "data/base/error.h"
#include "data/tokens/shard_writer.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

constexpr std::int64_t kVocabulary = 37, kLength = 8, kBatch = 2;

model::ModelConfig micro_model() {
  model::ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 8;
  config.max_position_embeddings = 16;
  config.residual = model::Residual::block_attn_res;
  config.num_blocks = 2;
  return config;
}

std::vector<float> query_of(const Subject& subject) {
  const kernels::Tensor query = subject.model().weights().reads.back().query;
  return {query.as<float>(), query.as<float>() + query.numel()};
}

TEST(BenchSubject, TimesStepsThatTrain) {
  const data::TokenStream stream = random_stream(kVocabulary, 8 * kBatch * kLength + 1);
  const data::Batches batches(stream, kLength, kBatch, 1);
  Subject subject(micro_model(), {}, kBatch, kLength);
  std::vector<float> before = query_of(subject);
  for (int step = 0; step < 10; ++step) {  // more than the stream holds: its order is drawn anew
    EXPECT_GT(subject.step_seconds(batches), 0);
    const std::vector<float> after = query_of(subject);
    EXPECT_NE(before, after) << "step " << step << " updated nothing";
    before = after;
  }
}

TEST(BenchSubject, RefusesStepsThatDoNotTrain) {
  const testing::TemporaryDirectory directory;
  const std::filesystem::path file = directory / "tokens.bin";
  data::ShardWriter writer(file, kVocabulary);
  writer.append(std::vector<std::int32_t>(8 * kBatch * kLength + 1, 3));
  writer.finish();
  const data::TokenStream stream({file.string()}, kVocabulary);
  const data::Batches batches(stream, kLength, kBatch, 1);
  Subject subject(micro_model(), {}, kBatch, kLength);
  subject.step_seconds(batches);
  std::filesystem::remove(file);
  try {
    subject.step_seconds(batches);
    FAIL() << "a step without tokens was timed";
  } catch (const data::Error& error) {
    EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace routescope::train
