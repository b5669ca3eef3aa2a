// Shared by both directions of qk_norm_rope: rotary angles, and how the heads of a packed row lie on a warp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

/// Half of the widest head_dim: 32 lanes of four floats.
inline constexpr int kMaxHalf = 128;

/// theta^(-2i/head_dim) in turns a position, as fractions of 2^64. Whole turns drop out of a product of integers by
/// themselves, so that position times this keeps 2^-41 of a turn at position 32768 without double arithmetic.
struct RotaryFrequencies {
  std::uint64_t turns[kMaxHalf];
};

inline RotaryFrequencies rotary_frequencies(std::int64_t head_dim, double theta) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  RotaryFrequencies out{};
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double turns = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)) / kTwoPi;
    out.turns[i] = static_cast<std::uint64_t>((turns - std::floor(turns)) * 0x1p64);
  }
  return out;
}

struct RotaryAngle {
  float cosine;
  float sine;
};
/// Cosine and sine of position * frequency, absolute error below 1.5e-7.
__device__ inline RotaryAngle rotary_angle(std::uint64_t turns, unsigned position) {
  const auto turn = static_cast<std::uint32_t>(turns * position >> 32);
  const std::uint32_t quadrant = (turn + 0x20000000u) >> 30;
  constexpr float kRadians = 1.46291807926715968e-9f;  // 2 pi / 2^32
  const float r = static_cast<float>(static_cast<std::int32_t>(turn - (quadrant << 30))) * kRadians;
  const float r2 = r * r;
  // Taylor about 0 on |r| <= pi/4: the next terms are below 3e-8 (cosine) and 2e-9 (sine).
  const float c = 1.0f + r2 * (-0.5f + r2 * (1.0f / 24 + r2 * (-1.0f / 720 + r2 * (1.0f / 40320))));
  const float s = r + r * r2 * (-1.0f / 6 + r2 * (1.0f / 120 + r2 * (-1.0f / 5040 + r2 * (1.0f / 362880))));
  const bool swap = (quadrant & 1u) != 0;
  // A sign is the highest bit: the cosine is negative in quadrants 1 and 2, the sine in 2 and 3.
  return {__uint_as_float(__float_as_uint(swap ? s : c) ^ ((quadrant + 1u) << 30 & 0x80000000u)),
          __uint_as_float(__float_as_uint(swap ? c : s) ^ (quadrant << 30 & 0x80000000u))};
}

/// A head lies on `lanes` lanes (a power of two), kVec<T> columns of its lower half on each and the same of its upper,
/// so that a lane holds what it rotates; a warp holds 32 / lanes heads side by side.
struct HeadLayout {
  int half;
  int lanes;
};

/// Throws std::invalid_argument for heads wider than kMaxHalf allows.
template <class T>
HeadLayout head_layout(const char* operation, std::int64_t head_dim) {
  if (head_dim > 2 * kMaxHalf)
    throw std::invalid_argument(std::string(operation) + ": expected a head_dim of at most " +
                                std::to_string(2 * kMaxHalf) + " on CUDA, found " + std::to_string(head_dim));
  const auto half = static_cast<int>(head_dim / 2);
  return {half, static_cast<int>(std::bit_ceil(static_cast<unsigned>(ceil_div(half, kVec<T>))))};
}

/// Half a head's worth of floats in shared memory, laid out so that lanes side by side read 16 bytes side by side; 0
/// behind the half's end. Angles and gains are kept here, because the kernels need all their registers.
struct alignas(16) HalfTable {
  float value[kMaxHalf];
};

/// A lane's columns of one head, as they lie in memory and as floats.
struct RawPair {
  uint4 low;
  uint4 high;
};
template <class T>
struct HalfPair {
  Vec<T> low;
  Vec<T> high;
};
template <class T>
__device__ HalfPair<T> unpack(const RawPair& raw) {
  return {unpack(raw.low, T{}), unpack(raw.high, T{})};
}

/// Where a lane stands in its warp's heads. kWhole: half a head is whole vectors, which start on 16 bytes everywhere.
template <class T, bool kWhole>
struct HeadLane {
  int half;
  int lanes;
  int lane;    // in the head
  int column;  // of the lower half
  int head;    // among the heads that a warp holds side by side

  __device__ explicit HeadLane(const HeadLayout& layout) : half(layout.half), lanes(layout.lanes) {
    lane = static_cast<int>(threadIdx.x) % kWarp & (lanes - 1);
    column = lane * kVec<T>;
    head = static_cast<int>(threadIdx.x) % kWarp / lanes;
  }
  __device__ int heads_at_once() const { return kWarp / lanes; }

  /// A lane's columns of x [head_dim]; zeros where `active` is false. Lanes are a power of two: some may have no
  /// columns.
  __device__ RawPair load(const T* x, bool active) const {
    if (!active || column >= half) return {};
    if constexpr (kWhole) return {load_raw(x + column), load_raw(x + half + column)};
    return {pack(load_row(x, column, half, false)), pack(load_row(x + half, column, half, false))};
  }
  __device__ void store(T* x, bool active, const HalfPair<T>& v) const {
    if (!active || column >= half) return;
    store_row(x, column, half, kWhole, v.low);
    store_row(x + half, column, half, kWhole, v.high);
  }

  /// table = value(i) for columns i of the half, written by threads `first`, `first` + `step`, ...
  template <class Value>
  __device__ void write(HalfTable& table, int first, int step, Value&& value) const {
    for (int i = first; i < lanes * kVec<T>; i += step) {
      const int part = i % kVec<T> / 4;
      table.value[(part * lanes + i / kVec<T>)*4 + i % 4] = i < half ? value(i) : 0.0f;
    }
  }
  /// A lane's columns of a table.
  __device__ Vec<T> read(const HalfTable& table) const {
    Vec<T> out;
#pragma unroll
    for (int part = 0; part < kVec<T> / 4; ++part) {
      const Vec<float> piece = load_vec(&table.value[(part * lanes + lane) * 4]);
#pragma unroll
      for (int i = 0; i < 4; ++i) out.value[4 * part + i] = piece.value[i];
    }
    return out;
  }
  /// The sum over the lanes of a head; all lanes of the warp take part.
  __device__ float head_sum(float value) const {
    for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
    return value;
  }
};

/// The frequencies, for a block, and the angles of a token, for each warp.
template <int kWarps>
struct RotaryShared {
  std::uint64_t turns[kMaxHalf];
  HalfTable cosine[kWarps];
  HalfTable sine[kWarps];
};

/// The whole block loads the frequencies; a barrier must follow.
template <int kWarps>
__device__ void take_frequencies(RotaryShared<kWarps>& shared, const RotaryFrequencies& frequencies, int half) {
  for (int i = static_cast<int>(threadIdx.x); i < half; i += kWarps * kWarp) shared.turns[i] = frequencies.turns[i];
}
/// The warp makes the angles of a position, for itself.
template <class T, bool kWhole, int kWarps>
__device__ void make_angles(RotaryShared<kWarps>& shared, const HeadLane<T, kWhole>& lane, unsigned position) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, first = static_cast<int>(threadIdx.x) % kWarp;
  __syncwarp();  // all lanes have read the previous angles
  lane.write(shared.cosine[warp], first, kWarp, [&](int i) { return rotary_angle(shared.turns[i], position).cosine; });
  lane.write(shared.sine[warp], first, kWarp, [&](int i) { return rotary_angle(shared.turns[i], position).sine; });
  __syncwarp();
}

/// to [count] = from, by one warp; the same tensor needs no copy.
template <bool kWhole, class T>
__device__ void copy_row(T* to, const T* from, int count) {
  if (to == from) return;
  constexpr int kUnroll = 4, kStride = kWarp * kVec<T>;
  for (int begin = static_cast<int>(threadIdx.x) % kWarp * kVec<T>; begin < count; begin += kUnroll * kStride) {
    uint4 v[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const int at = begin + k * kStride;
      if (at >= count) continue;
      if constexpr (kWhole)
        v[k] = load_raw(from + at);
      else
        v[k] = pack(load_row(from, at, count, false));
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const int at = begin + k * kStride;
      if (at < count) store_row(to, at, count, kWhole, unpack(v[k], T{}));
    }
  }
}

}  // namespace routescope::kernels::cuda
