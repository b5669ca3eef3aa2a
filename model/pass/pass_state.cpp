#include "model/pass/pass_state.h"

#include <cstring>

namespace routescope::model {

PassState::PassState(const Model& model_, const kernels::AttentionShape& shape_, bool train,
                     const PassOptions& options_, std::size_t bytes)
    : model(model_),
      config(model_.config()),
      plan(model_.plan()),
      shape(shape_),
      options(options_),
      arena(model_.options().device, bytes),
      own_stream(model_.options().device),
      alpha_is_given(plan.reads.size(), false) {
  act.take(arena, config, plan, model.options(), shape, train, options);
  stream = {.device = model.options().device,
            .handle = own_stream.handle(),
            .workspace = static_cast<std::byte*>(act.workspace.data),
            .workspace_size = act.workspace.bytes()};
}

kernels::Tensor PassState::norm_gain(const Weights& weights, int r) const {
  if (read(r).sublayer == Sublayer::final) return weights.final_norm;
  const LayerWeights& layer = weights.layers[static_cast<std::size_t>(read(r).layer)];
  return read(r).sublayer == Sublayer::attn ? layer.attn_norm : layer.mlp_norm;
}

SourceTensors PassState::sources_of(int r) {
  SourceTensors out;
  for (int source : read(r).sources) {
    out.values.push_back(at(source).state.partial);
    out.inv_rms.push_back(at(source).state.inv_rms);
  }
  return out;
}

kernels::AttnResParams PassState::params_of(int r, std::int64_t sequence) {
  const ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
  return {.query = weights.query,
          .key_gain = weights.key_gain,
          .bias = weights.bias,
          .logit_bias = at(r).logit_bias.rows(sequence, sequence + 1).view({at(r).logit_bias.shape[1]}),
          .norm_gain = norm_gain(model.weights(), r),
          .eps = config.rms_norm_eps};
}

Upload::Upload(kernels::Device device, std::size_t bytes) {
  if (device == kernels::Device::cuda)
    for (std::optional<Slot>& slot : slots_) slot.emplace(bytes);
}

void Upload::to(kernels::Tensor dst, const void* values, const kernels::Stream& stream) {
  const auto host = [&](void* data) {
    kernels::Tensor tensor = dst;
    tensor.data = data;
    tensor.device = kernels::Device::cpu;
    return tensor;
  };
  std::optional<Slot>& slot = slots_[next_++ % slots_.size()];
  if (!slot) return kernels::copy(dst, host(const_cast<void*>(values)), stream);
  slot->copied.wait();  // the slot's previous copy, which ended long ago
  std::memcpy(slot->memory.data(), values, dst.bytes());
  kernels::copy(dst, host(slot->memory.data()), stream);
  slot->copied.record(stream);
}

}  // namespace routescope::model
