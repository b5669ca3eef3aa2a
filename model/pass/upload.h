// Token ids on their way to the device: through pinned memory, so that the host does not wait for earlier work.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/device.h"

namespace routescope::model {

class Upload {
 public:
  /// `bytes`: of the largest tensor to come.
  Upload(kernels::Device device, std::size_t bytes);

  /// dst = values, in order with the stream's work; `values` may be changed when this returns.
  void to(kernels::Tensor dst, std::span<const std::int32_t> values, const kernels::Stream& stream);

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
