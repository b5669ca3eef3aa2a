// Tensor-core products of bf16 and asynchronous copies into shared memory, as functions: PTX on a device
// (capability 8.0 and up), built from exchanges between the lanes of a warp in emulation. Fragments are laid out over a
// warp as the PTX ISA's tables for mma.m16n8k16 and ldmatrix say; with g = lane / 4 and t = lane % 4, and a register
// holding two bf16 of which the lower half comes first:
//   A [16, 16]  reg 0: row g, columns 2t, 2t+1;  reg 1: row g+8;  reg 2: row g, columns 2t+8, 2t+9;  reg 3: both + 8
//   B [16, 8]   reg 0: rows 2t, 2t+1 of column g;  reg 1: rows 2t+8, 2t+9
//   C [16, 8]   value 0, 1: row g, columns 2t, 2t+1;  value 2, 3: row g+8
// So C of one product, rounded to bf16, is A of the next without an exchange between lanes.
#pragma once

#include <cstdint>

#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

struct FragmentA {
  std::uint32_t reg[4];
};
struct FragmentB {
  std::uint32_t reg[2];
};
struct FragmentC {
  float value[4];
};
/// Four 8 x 8 matrices of bf16: reg i of a lane holds row g, columns 2t and 2t+1 of matrix i (of its transpose).
struct FourMatrices {
  std::uint32_t reg[4];
};

#ifdef ROUTESCOPE_SIMT

/// Each lane names a row of eight bf16 in shared memory, `offset` elements from `tile` and aligned to 16 bytes: lanes
/// 8i .. 8i+7 the rows of matrix i. (In two parts, so that constants of an unrolled loop become immediate offsets.)
inline FourMatrices load_matrices(const bf16* tile, int offset) {
  const auto rows = simt::gather<const bf16*>(kFullMask, tile + offset, "load_matrices");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  FourMatrices out;
  for (int i = 0; i < 4; ++i) {
    const bf16* pair = rows[static_cast<std::size_t>(8 * i + lane / 4)] + 2 * (lane % 4);
    out.reg[i] = pair[0].bits | static_cast<std::uint32_t>(pair[1].bits) << 16;
  }
  return out;
}
/// As load_matrices, with each matrix transposed.
inline FourMatrices load_matrices_transposed(const bf16* tile, int offset) {
  const auto rows = simt::gather<const bf16*>(kFullMask, tile + offset, "load_matrices_transposed");
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  FourMatrices out;
  for (int i = 0; i < 4; ++i) {
    const auto at = [&](int k) { return rows[static_cast<std::size_t>(8 * i + k)][lane / 4].bits; };
    out.reg[i] = at(2 * (lane % 4)) | static_cast<std::uint32_t>(at(2 * (lane % 4) + 1)) << 16;
  }
  return out;
}

/// c += a b.
inline void multiply_add(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  struct Operands {
    FragmentA a;
    FragmentB b;
  };
  const auto all = simt::gather<Operands>(kFullMask, {a, b}, "multiply_add");
  // This lane's two rows of A and two columns of B, from the four lanes that hold each.
  const int lane = static_cast<int>(threadIdx.x) % kWarp, row = lane / 4, column = 2 * (lane % 4);
  float rows[2][16], columns[2][16];
  for (int t = 0; t < 4; ++t) {
    const FragmentA from_a = all[static_cast<std::size_t>(4 * row + t)].a;
    for (int i = 0; i < 4; ++i) {
      rows[i % 2][2 * t + i / 2 * 8] = low_bf16(from_a.reg[i]);
      rows[i % 2][2 * t + i / 2 * 8 + 1] = high_bf16(from_a.reg[i]);
    }
    for (int n = 0; n < 2; ++n) {
      const FragmentB from_b = all[static_cast<std::size_t>(4 * (column + n) + t)].b;
      for (int i = 0; i < 2; ++i) {
        columns[n][2 * t + i * 8] = low_bf16(from_b.reg[i]);
        columns[n][2 * t + i * 8 + 1] = high_bf16(from_b.reg[i]);
      }
    }
  }
  // A product of two bf16 is exact in float.
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) c.value[i] += rows[i / 2][k] * columns[i % 2][k];
}

/// Begins a copy of 16 bytes from device to shared memory (both aligned to that), or of 16 zero bytes unless `present`:
/// then `from` is not read.
inline void copy_async_16(void* to, const void* from, bool present) {
  simt::async_copy(to, from, 16, present ? 16 : 0);
}
/// As copy_async_16, of 4 bytes.
inline void copy_async_4(void* to, const void* from, bool present) {
  simt::async_copy(to, from, 4, present ? 4 : 0);
}
/// Closes the group of copies that this thread has begun since the last one. A group may be empty.
inline void close_copies() {
  simt::async_commit();
}
/// Waits until at most `left` of this thread's groups are under way. What other threads copied is there after a
/// barrier.
template <int left>
inline void wait_for_copies() {
  simt::async_wait(left);
}

/// 2^x, to about 2 ulp; 0 for -infinity.
inline float fast_exp2(float x) {
  return exp2f(x);
}
/// x. The compiler cannot see that the result is x, so it computes here what follows from it, and keeps nothing of it
/// in registers from elsewhere.
inline int fresh(int x) {
  return x;
}

#else

__device__ inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}
__device__ inline FourMatrices load_matrices(const bf16* tile, int offset) {
  FourMatrices out;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.reg[0]), "=r"(out.reg[1]), "=r"(out.reg[2]), "=r"(out.reg[3])
               : "r"(shared_address(tile) + 2 * static_cast<unsigned>(offset))
               : "memory");
  return out;
}
__device__ inline FourMatrices load_matrices_transposed(const bf16* tile, int offset) {
  FourMatrices out;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.reg[0]), "=r"(out.reg[1]), "=r"(out.reg[2]), "=r"(out.reg[3])
               : "r"(shared_address(tile) + 2 * static_cast<unsigned>(offset))
               : "memory");
  return out;
}
__device__ inline void multiply_add(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
      : "r"(a.reg[0]), "r"(a.reg[1]), "r"(a.reg[2]), "r"(a.reg[3]), "r"(b.reg[0]), "r"(b.reg[1]));
}
__device__ inline void copy_async_16(void* to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(present ? 16 : 0)
               : "memory");
}
__device__ inline void copy_async_4(void* to, const void* from, bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(present ? 4 : 0)
               : "memory");
}
__device__ inline void close_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int left>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline int fresh(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

#endif

/// Four matrices as A [16, 16] (two down, then two across), or as two neighbouring B [16, 8].
__device__ inline FragmentA as_a(const FourMatrices& m) {
  return {{m.reg[0], m.reg[1], m.reg[2], m.reg[3]}};
}
__device__ inline FragmentB left_b(const FourMatrices& m) {
  return {{m.reg[0], m.reg[1]}};
}
__device__ inline FragmentB right_b(const FourMatrices& m) {
  return {{m.reg[2], m.reg[3]}};
}

/// Two neighbouring C [16, 8], rounded to bf16, as A [16, 16] of the next product.
__device__ inline FragmentA as_operand(const FragmentC& left, const FragmentC& right) {
  return {{pack_bf16(left.value[0], left.value[1]), pack_bf16(left.value[2], left.value[3]),
           pack_bf16(right.value[0], right.value[1]), pack_bf16(right.value[2], right.value[3])}};
}

}  // namespace routescope::kernels::cuda
