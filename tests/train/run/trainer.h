// Training steps in this process, on ranks that are threads (strict_ranks.h).
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "data/tokens/batches.h"
#include "data/tokens/shard.h"
#include "kernels/memory.h"
#include "model/pass/pass.h"
#include "tests/train/run/strict_ranks.h"
#include "train/optimizer/optimizer.h"
#include "train/run/step.h"

namespace routescope::testing {

/// One rank of a run.
struct Trainer {
  Trainer(const train::TrainConfig& config_, kernels::Communicator& communicator_)
      : config(config_),
        communicator(communicator_),
        stream(config.data.train, config.model.vocab_size),
        batches(stream, config.data.sequence_length, config.sequences_per_step(), 5),
        model(initial(config, communicator.size())),
        optimizer(model, config.train.optimizer, communicator, config.distributed),
        gradients(kernels::DType::f32, model.options().device, {model.layout().total()}),
        pass(model, config.train.micro_batch, config.data.sequence_length, model::Pass::Kind::train,
             config.pass_options()) {}

  static model::Model initial(const train::TrainConfig& config, int ranks) {
    model::ModelOptions options = config.model_options();
    options.shards = ranks;
    model::Model model(config.model, options);
    model.initialize(3);
    return model;
  }

  train::StepResult step(std::int64_t number, const train::StepHooks& hooks = {}) {
    return train::train_step(model, optimizer, gradients.tensor, pass, batches, communicator,
                             {.step = number,
                              .batch = number - 1,
                              .learning_rate = config.train.optimizer.learning_rate,
                              .grad_clip = config.train.grad_clip},
                             hooks);
  }

  /// On rank 0: all master weights by parameter, in file order and without padding.
  std::vector<float> weights() {
    const model::ParameterLayout& layout = model.layout();
    const kernels::OwnedTensor flat = optimizer.parameters().gather(pass.stream());
    std::vector<float> out;
    if (flat.tensor)
      for (const model::ParameterInfo& info : layout.all())
        for (std::int64_t i = 0; i < info.size; ++i) out.push_back(flat.tensor.as<float>()[info.offset + i]);
    return out;
  }

  const train::TrainConfig& config;
  kernels::Communicator& communicator;
  data::TokenStream stream;
  data::Batches batches;
  model::Model model;
  train::Optimizer optimizer;
  kernels::OwnedTensor gradients;
  model::Pass pass;
};

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> weights;
};

inline Trained train(const train::TrainConfig& config, int ranks, int steps) {
  Trained out;
  StrictRanks::run(ranks, [&](kernels::Communicator& communicator) {
    Trainer trainer(config, communicator);
    std::vector<double> losses, norms;
    for (int step = 1; step <= steps; ++step) {
      const train::StepResult result = trainer.step(step);
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
