// The subject of a benchmark: a model with its optimizer on random tokens, whose steps are timed; and the median.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/tokens/batches.h"
#include "data/tokens/shard.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

/// Of at least one value.
double median(std::vector<double> values);

/// A stream of random tokens in memory. Its file is removed at once, so that an interrupted benchmark leaves none.
data::TokenStream random_stream(std::int64_t vocab_size, std::int64_t tokens);

/// Bytes of parameters, operands, gradients, optimizer state and everything that a training pass keeps.
std::size_t training_bytes(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch,
                           std::int64_t seq_len, const model::PassOptions& pass_options);

/// One training step (train/run/step.h) whose time is taken. Throws Error for a step that updated nothing: its time
/// says nothing.
void timed_step(model::Model& model, Optimizer& optimizer, kernels::Tensor gradients, model::Pass& pass,
                const data::Batches& batches, kernels::Communicator& communicator, std::int64_t step);

/// A new model, its optimizer, and a pass over `batch` sequences of `seq_len` tokens.
class Subject {
 public:
  Subject(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch,
          std::int64_t seq_len, const model::PassOptions& pass_options = {});

  /// Seconds of one timed_step() on the next batches, until the device has finished it.
  double step_seconds(const data::Batches& batches);

  const model::Model& model() const { return model_; }

 private:
  model::Model model_;
  std::unique_ptr<kernels::Communicator> communicator_ = kernels::single_communicator();
  Optimizer optimizer_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  std::int64_t step_ = 0;
};

}  // namespace routescope::train
