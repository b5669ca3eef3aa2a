#include "model/pass/upload.h"

#include <algorithm>

namespace routescope::model {

Upload::Upload(kernels::Device device, std::size_t bytes) {
  if (device == kernels::Device::cuda)
    for (std::optional<Slot>& slot : slots_) slot.emplace(bytes);
}

void Upload::to(kernels::Tensor dst, std::span<const std::int32_t> values, const kernels::Stream& stream) {
  const auto tensor = [&](void* data) {
    return kernels::Tensor(data, kernels::DType::i32, kernels::Device::cpu, {static_cast<std::int64_t>(values.size())});
  };
  std::optional<Slot>& slot = slots_[next_++ % slots_.size()];
  if (!slot) return kernels::copy(dst, tensor(const_cast<std::int32_t*>(values.data())), stream);
  slot->copied.wait();  // the slot's previous copy, which ended long ago
  std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(slot->memory.data()));
  kernels::copy(dst, tensor(slot->memory.data()), stream);
  slot->copied.record(stream);
}

}  // namespace routescope::model
