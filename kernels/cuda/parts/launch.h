// The launch of kernels, and their shared memory. Two compilers take the files that include this: nvcc for a device,
// and the host's compiler for the emulation of tests/simt, whose cuda_runtime.h runs each thread as a fiber.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "kernels/stream.h"

namespace routescope::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

/// Blocks, threads a block (a multiple of 32) and bytes of shared memory a block. No block means no launch.
struct Grid {
  dim3 blocks;
  int threads;
  std::size_t shared_bytes = 0;
};

template <class T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

/// The most shared memory that a block may ask for on the current device, in bytes: 227 KiB on capability 9.0, 163 on
/// 8.0, 99 on 8.6, 8.9 and 12.0.
inline std::size_t shared_memory_limit() {
#ifdef ROUTESCOPE_SIMT
  return std::size_t{227} << 10;
#else
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return static_cast<std::size_t>(bytes);
#endif
}

/// Starts kernel(arguments...) on the stream. Throws std::runtime_error naming the kernel if CUDA refuses.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, const Stream& stream,
            const Arguments&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
#ifdef ROUTESCOPE_SIMT
  simt::launch(name, grid.blocks, dim3(static_cast<unsigned>(grid.threads)), grid.shared_bytes, stream.handle,
               [kernel, arguments...] { kernel(static_cast<Parameters>(arguments)...); });
#else
  const auto check = [name](cudaError_t status) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // clears the error, for the next launch
    throw std::runtime_error("CUDA: kernel " + std::string(name) + ": " + cudaGetErrorString(status));
  };
  // Above 48 KiB CUDA wants the size to be set beforehand.
  constexpr std::size_t kOrdinaryShared = std::size_t{48} << 10;
  if (grid.shared_bytes > kOrdinaryShared)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(grid.shared_bytes)));
  // The formatter would split the brackets.
  // clang-format off
  kernel<<<grid.blocks, static_cast<unsigned>(grid.threads), grid.shared_bytes,
           static_cast<cudaStream_t>(stream.handle)>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
  check(cudaGetLastError());
#endif
}

/// The block's shared memory as one struct, whose size the launch gave as shared_bytes. Its contents are undefined
/// until written.
template <class T>
__device__ T& shared_memory() {
#ifdef ROUTESCOPE_SIMT
  return *static_cast<T*>(simt::shared_memory(sizeof(T), alignof(T)));
#else
  extern __shared__ __align__(128) unsigned char routescope_shared_bytes[];
  return *reinterpret_cast<T*>(routescope_shared_bytes);
#endif
}

}  // namespace routescope::kernels::cuda
