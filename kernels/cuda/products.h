// Matrix products on CUDA (matmul.cpp): how their algorithms are chosen, and the memory they take.
#pragma once

#include <atomic>
#include <cstddef>

namespace routescope::kernels::cuda {

/// The part of a stream's workspace that cuBLASLt may use: 32 MiB, as its documentation advises for Hopper, and room to
/// align it.
inline constexpr std::size_t kProductWorkspace = (std::size_t{32} << 20) + 256;

inline std::atomic<bool> product_tuning{false};

/// Whether the first product of a shape times up to eight of cuBLASLt's candidates on the device and keeps the fastest.
/// Off, it takes the one that cuBLASLt's heuristic puts first, which follows from shape, device and library alone. That
/// is the default: timings may choose differently in another process, and with another algorithm a resumed run would
/// round differently. ROUTESCOPE_TUNE=0 in the environment keeps it off in any case.
inline void set_product_tuning(bool tune) {
  product_tuning = tune;
}

}  // namespace routescope::kernels::cuda
