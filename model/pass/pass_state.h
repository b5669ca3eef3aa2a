// What the steps of a pass share: the model, the shape of a batch, the tensors, the stream; and the upload of token
// ids.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
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
  /// With the logit bias of one sequence.
  kernels::AttnResParams params_of(int r, std::int64_t sequence = 0);
};

/// Host values on their way to a device: through pinned memory, so that the host does not wait for earlier work of the
/// stream.
class Upload {
 public:
  /// `bytes`: of the largest tensor to come.
  Upload(kernels::Device device, std::size_t bytes);

  /// dst = values (host memory, of dst's type and size), in order with the stream's work; `values` may be changed when
  /// this returns.
  void to(kernels::Tensor dst, const void* values, const kernels::Stream& stream);

 private:
  struct Slot {
    explicit Slot(std::size_t bytes) : memory(bytes) {}
    kernels::PinnedBuffer memory;
    kernels::StreamEvent copied;
  };
  // Ids and targets of the micro-batch that computes and of the one after it.
  std::array<std::optional<Slot>, 4> slots_;
  std::size_t next_ = 0;
};

}  // namespace routescope::model
