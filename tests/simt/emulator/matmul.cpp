// The matrix product of the emulated device, lent by the CPU backend.
#include <stdexcept>
#include <string>

#include "kernels/backends.h"
#include "tests/simt/emulator/device_memory.h"
#include "tests/simt/emulator/streams.h"

namespace routescope::kernels::cuda {

void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b, bool accumulate,
            const Stream& stream) {
  const auto lent = [](Tensor t) {
    if (t.numel() > 0 && !simt::on_device(t.data, t.bytes(), "matmul"))
      throw std::runtime_error("CUDA: matmul: an operand lies in the host's memory");
    t.device = Device::cpu;
    return t;
  };
  simt::enqueue(stream.handle, "matmul", [=, c = lent(c), a = lent(a), b = lent(b)] {
    const simt::DeviceWorks open;
    cpu::matmul(c, a, transpose_a, b, transpose_b, accumulate, Stream{});
  });
}

}  // namespace routescope::kernels::cuda
