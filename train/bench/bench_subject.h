// What a benchmark steps and times: a model with its optimizer on random tokens; and the median of its times.
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

/// A stream of random tokens. Its file is gone as soon as it is mapped: an interrupted benchmark leaves nothing behind.
data::TokenStream random_stream(std::int64_t vocab_size, std::int64_t tokens);

/// A freshly drawn model, one pass over `batch` sequences of `seq_len` tokens, and the updates that follow.
class Subject {
 public:
  Subject(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch,
          std::int64_t seq_len, const model::PassOptions& pass_options = {});

  /// One whole step (train/step.h) on the next batches, the device's work included. Seconds.
  double step_seconds(const data::Batches& batches);

  const model::Model& model() const { return model_; }
  /// Bytes of parameters, operands, gradients, moments and everything that the pass keeps.
  std::size_t bytes() const;

 private:
  model::Model model_;
  std::unique_ptr<kernels::Communicator> communicator_ = kernels::single_communicator();
  AdamW optimizer_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  std::int64_t step_ = 0;
};

}  // namespace routescope::train
