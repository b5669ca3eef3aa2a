// Token ids on their way to the device: through pinned memory, so that the host does not wait for the work before.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/device.h"

namespace routescope::model {

class Upload {
 public:
  /// `bytes`: of the largest tensor to come.
  Upload(kernels::Device device, std::size_t bytes) {
    if (device == kernels::Device::cuda)
      for (std::optional<Slot>& slot : slots_) slot.emplace(bytes);
  }

  /// dst = values, in order with the stream's work; `values` may be changed when this returns.
  void to(kernels::Tensor dst, std::span<const std::int32_t> values, const kernels::Stream& stream) {
    const auto tensor = [&](void* data) {
      return kernels::Tensor(data, kernels::DType::i32, kernels::Device::cpu,
                             {static_cast<std::int64_t>(values.size())});
    };
    std::optional<Slot>& slot = slots_[next_++ % slots_.size()];
    if (!slot) return kernels::copy(dst, tensor(const_cast<std::int32_t*>(values.data())), stream);
    slot->copied.wait();  // of its former use, long since over
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(slot->memory.data()));
    kernels::copy(dst, tensor(slot->memory.data()), stream);
    slot->copied.record(stream);
  }

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
