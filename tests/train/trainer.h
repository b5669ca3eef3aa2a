// A run in this process, as ranks that are threads (strict_ranks.h): steps and nothing beside them.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "data/batches.h"
#include "data/shard.h"
#include "kernels/memory.h"
#include "tests/train/strict_ranks.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace routescope::testing {

/// What one rank of a run has.
struct Trainer {
  Trainer(const TrainConfig& config_, Communicator& communicator_)
      : config(config_),
        communicator(communicator_),
        stream(config.data.train, config.model.vocab_size),
        batches(stream, config.data.sequence_length, config.sequences_per_step(), 5),
        model(initial(config, communicator.size())),
        optimizer(model, config.train.optimizer, communicator, config.distributed),
        gradients(DType::f32, model.options().device, {model.layout().total()}),
        pass(model, config.train.micro_batch, config.data.sequence_length, Pass::Kind::train, config.pass_options()) {}

  static Model initial(const TrainConfig& config, int ranks) {
    ModelOptions options = config.model_options();
    options.shards = ranks;
    Model model(config.model, options);
    model.initialize(3);
    return model;
  }

  StepResult step(std::int64_t number, const StepHooks& hooks = {}) {
    return train_step(model, optimizer, gradients.tensor, pass, batches, communicator,
                      {.step = number,
                       .batch = number - 1,
                       .learning_rate = config.train.optimizer.learning_rate,
                       .grad_clip = config.train.grad_clip},
                      hooks);
  }

  /// All master weights by parameter, in file order and without padding; on rank 0.
  std::vector<float> weights() {
    const ParameterLayout& layout = model.layout();
    const OwnedTensor flat = optimizer.gather_parameters(pass.stream());
    std::vector<float> out;
    if (flat.tensor)
      for (const ParameterInfo& info : layout.all())
        for (std::int64_t i = 0; i < info.size; ++i) out.push_back(flat.tensor.as<float>()[info.offset + i]);
    return out;
  }

  const TrainConfig& config;
  Communicator& communicator;
  TokenStream stream;
  Batches batches;
  Model model;
  AdamW optimizer;
  OwnedTensor gradients;
  Pass pass;
};

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> weights;
};

inline Trained train(const TrainConfig& config, int ranks, int steps) {
  Trained out;
  StrictRanks::run(ranks, [&](Communicator& communicator) {
    Trainer trainer(config, communicator);
    std::vector<double> losses, norms;
    for (int step = 1; step <= steps; ++step) {
      const StepResult result = trainer.step(step);
      losses.push_back(result.loss);
      norms.push_back(result.grad_norm);
    }
    std::vector<float> weights = trainer.weights();
    if (communicator.rank() == 0) out = {losses, norms, std::move(weights)};
  });
  return out;
}

inline void expect_same_bits(const Trained& found, const Trained& expected, const std::string& what) {
  EXPECT_EQ(found.losses, expected.losses) << what;
  EXPECT_EQ(found.norms, expected.norms) << what;
  ASSERT_EQ(found.weights.size(), expected.weights.size()) << what;
  ASSERT_FALSE(found.weights.empty());
  EXPECT_EQ(std::memcmp(found.weights.data(), expected.weights.data(), found.weights.size() * sizeof(float)), 0)
      << what;
}

}  // namespace routescope::testing
