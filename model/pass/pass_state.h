// What the steps of a pass share: the model, the shape of a batch, the tensors, the stream.
#pragma once

#include <vector>

#include "kernels/device.h"
#include "kernels/range.h"
#include "model/pass/activations.h"
#include "model/pass/pass.h"

namespace routescope::model {

inline constexpr auto kNo = kernels::Transpose::no;
inline constexpr auto kYes = kernels::Transpose::yes;

/// The completed sources of a read.
struct SourceTensors {
  std::vector<kernels::Tensor> values, inv_rms;
  kernels::AttnResSources view() const { return {values, inv_rms}; }
};

struct PassState {
  const Model& model;
  const ModelConfig& config;
  const ReadPlan& plan;
  kernels::AttentionShape shape;
  PassOptions options;
  kernels::Arena arena;
  Activations act;
  kernels::OwnedStream own_stream;
  kernels::Stream stream;
  std::vector<bool> alpha_is_given;  // by read, in the last forward pass

  /// `bytes`: of all tensors together, as Pass::plan_memory() counts them.
  PassState(const Model& model_, const kernels::AttentionShape& shape_, bool train, const PassOptions& options_,
            std::size_t bytes);

  int last_read() const { return static_cast<int>(plan.reads.size()) - 1; }
  const Read& read(int r) const { return plan.reads[static_cast<std::size_t>(r)]; }
  ReadActivations& at(int r) { return act.reads[static_cast<std::size_t>(r)]; }

  /// The gain of the RMSNorm that follows read r, of the weights or of their gradients.
  kernels::Tensor norm_gain(const Weights& weights, int r) const;
  SourceTensors sources_of(int r);
  kernels::AttnResParams params_of(int r);
};

}  // namespace routescope::model
