// The wrappers of kernels/cuda/parts/mma.h, in emulation, against the fragment tables of the PTX ISA ("Matrix Fragments
// for mma.m16n8k16" and "ldmatrix"), which are written out here once more, and against plain products: what stands in
// for the tensor cores has to lay numbers out as they do.
#include "kernels/cuda/parts/mma.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/memory.h"
#include "tests/kernels/op_case.h"

namespace routescope::kernels::cuda {
namespace {

using testing::random_numbers;

// The tables: element i of a lane's fragment, where g = lane / 4 and t = lane % 4.
int a_row(int lane, int i) {
  return i < 2 || (4 <= i && i < 6) ? lane / 4 : lane / 4 + 8;
}
int a_column(int lane, int i) {
  return i < 4 ? lane % 4 * 2 + (i & 1) : lane % 4 * 2 + (i & 1) + 8;
}
int b_row(int lane, int i) {
  return i < 2 ? lane % 4 * 2 + (i & 1) : lane % 4 * 2 + (i & 1) + 8;
}
int b_column(int lane, int) {
  return lane / 4;
}
int c_row(int lane, int i) {
  return i < 2 ? lane / 4 : lane / 4 + 8;
}
int c_column(int lane, int i) {
  return lane % 4 * 2 + (i & 1);
}

std::uint32_t pair_of(bf16 low, bf16 high) {
  return low.bits | static_cast<std::uint32_t>(high.bits) << 16;
}

/// c [16, 8] += a [16, 16] b [16, 8], fragments filled and emptied by the tables.
void multiply_kernel(float* c, const bf16* a, const bf16* b) {
  const int lane = static_cast<int>(threadIdx.x);
  FragmentA from_a;
  for (int i = 0; i < 8; i += 2)
    from_a.reg[i / 2] =
        pair_of(a[a_row(lane, i) * 16 + a_column(lane, i)], a[a_row(lane, i + 1) * 16 + a_column(lane, i + 1)]);
  FragmentB from_b;
  for (int i = 0; i < 4; i += 2)
    from_b.reg[i / 2] =
        pair_of(b[b_row(lane, i) * 8 + b_column(lane, i)], b[b_row(lane, i + 1) * 8 + b_column(lane, i + 1)]);
  FragmentC sum;
  for (int i = 0; i < 4; ++i) sum.value[i] = c[c_row(lane, i) * 8 + c_column(lane, i)];
  multiply_add(sum, from_a, from_b);
  for (int i = 0; i < 4; ++i) c[c_row(lane, i) * 8 + c_column(lane, i)] = sum.value[i];
}

struct Matrices {
  alignas(16) bf16 value[16 * 16];
};

/// What load_matrices gives for a 16 x 16 tile taken as A, as two B of its transpose, and as two B: out [3, 32, 8].
void load_kernel(bf16* out, const bf16* tile) {
  auto& shared = shared_memory<Matrices>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) shared.value[lane * 8 + i] = tile[lane * 8 + i];
  __syncwarp();
  const int down_then_across = lane % 16 * 16 + lane / 16 * 8;
  const int across_then_down = (lane / 16 * 8 + lane % 8) * 16 + lane / 8 % 2 * 8;
  const FourMatrices all[3] = {load_matrices(shared.value, down_then_across),
                               load_matrices(shared.value, across_then_down),
                               load_matrices_transposed(shared.value, down_then_across)};
  for (int kind = 0; kind < 3; ++kind)
    for (int i = 0; i < 8; ++i)
      out[(kind * 32 + lane) * 8 + i].bits = static_cast<std::uint16_t>(all[kind].reg[i / 2] >> (i % 2 * 16));
}

struct Copies {
  alignas(16) float value[3][4];
  float single[2];
};

/// Two groups of copies: the first holds 16 bytes that are there and 16 that are not, the second 16 bytes and 4.
void copy_kernel(float* out, const float* from) {
  auto& shared = shared_memory<Copies>();
  copy_async_16(shared.value[0], from, true);
  copy_async_16(shared.value[1], from + 4, false);
  close_copies();
  copy_async_16(shared.value[2], from + 8, true);
  copy_async_4(shared.single, from + 1, true);
  copy_async_4(shared.single + 1, from + 2, false);
  close_copies();
  wait_for_copies<1>();
  for (int i = 0; i < 8; ++i) out[i] = shared.value[i / 4][i % 4];
  wait_for_copies<0>();
  for (int i = 0; i < 4; ++i) out[8 + i] = shared.value[2][i];
  out[12] = shared.single[0];
  out[13] = shared.single[1];
}

Tensor values_to(OwnedTensor& host, OwnedTensor& device, DType dtype, const std::vector<double>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  host = OwnedTensor(dtype, Device::cpu, {count});
  device = OwnedTensor(dtype, Device::cuda, {count});
  for (std::int64_t i = 0; i < count; ++i) testing::set(host.tensor, i, values[static_cast<std::size_t>(i)]);
  copy(device.tensor, host.tensor, Stream{.device = Device::cuda});
  return device.tensor;
}

const Stream kStream{.device = Device::cuda};
constexpr Grid kOneWarp{dim3(1), 32, sizeof(Matrices)};

TEST(Mma, MultipliesByTheTables) {
  OwnedTensor host_a, host_b, host_c, device_a, device_b, device_c;
  const Tensor a = values_to(host_a, device_a, DType::bf16, random_numbers(16 * 16, 1));
  const Tensor b = values_to(host_b, device_b, DType::bf16, random_numbers(16 * 8, 2));
  const Tensor c = values_to(host_c, device_c, DType::f32, random_numbers(16 * 8, 3));
  launch("multiply", multiply_kernel, kOneWarp, kStream, c.as<float>(), a.as<bf16>(), b.as<bf16>());
  const std::vector<double> result = testing::values_of(c);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double sum = testing::get(host_c.tensor, row * 8 + column);
      for (int k = 0; k < 16; ++k)
        sum += testing::get(host_a.tensor, row * 16 + k) * testing::get(host_b.tensor, k * 8 + column);
      // 16 products of numbers below 2, added in float.
      EXPECT_NEAR(result[static_cast<std::size_t>(row * 8 + column)], sum, 16 * 64 * 0x1p-24) << row << ", " << column;
    }
  }
}

TEST(Mma, LoadsMatricesByTheTables) {
  std::vector<double> numbers(16 * 16);  // all different, and exact in bf16
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i);
  OwnedTensor host, device;
  const Tensor tile = values_to(host, device, DType::bf16, numbers);
  OwnedTensor out(DType::bf16, Device::cuda, {3, 32, 8});
  launch("load", load_kernel, kOneWarp, kStream, out.tensor.as<bf16>(), tile.as<bf16>());
  const std::vector<double> found = testing::values_of(out.tensor);
  const auto at = [&](int kind, int lane, int i) {
    return found[static_cast<std::size_t>((kind * 32 + lane) * 8 + i)];
  };
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const int side = i / 4 * 8;  // the second B is eight columns further on
      EXPECT_EQ(at(0, lane, i), a_row(lane, i) * 16 + a_column(lane, i)) << "A, lane " << lane << ", " << i;
      EXPECT_EQ(at(1, lane, i), (b_column(lane, i % 4) + side) * 16 + b_row(lane, i % 4))
          << "B of the transpose, lane " << lane << ", " << i;
      EXPECT_EQ(at(2, lane, i), b_row(lane, i % 4) * 16 + b_column(lane, i % 4) + side)
          << "B, lane " << lane << ", " << i;
    }
  }
}

TEST(Mma, ResultOfAProductIsOperandOfTheNext) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto number = [&](int i, int side) {
      return static_cast<float>(c_row(lane, i) * 16 + c_column(lane, i) + side);
    };
    FragmentC left, right;
    for (int i = 0; i < 4; ++i) {
      left.value[i] = number(i, 0);
      right.value[i] = number(i, 8);
    }
    const FragmentA a = as_operand(left, right);
    for (int i = 0; i < 8; ++i) {
      const float found = i % 2 == 0 ? low_bf16(a.reg[i / 2]) : high_bf16(a.reg[i / 2]);
      EXPECT_EQ(found, static_cast<float>(a_row(lane, i) * 16 + a_column(lane, i))) << "lane " << lane << ", " << i;
    }
  }
}

TEST(Mma, CopiesInGroups) {
  std::vector<double> numbers(12);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i) + 0.5;
  OwnedTensor host, device;
  const Tensor from = values_to(host, device, DType::f32, numbers);
  OwnedTensor out(DType::f32, Device::cuda, {14});
  launch("copy", copy_kernel, {dim3(1), 32, sizeof(Copies)}, kStream, out.tensor.as<float>(), from.as<float>());
  EXPECT_EQ(testing::values_of(out.tensor),
            (std::vector<double>{0.5, 1.5, 2.5, 3.5, 0, 0, 0, 0, 8.5, 9.5, 10.5, 11.5, 1.5, 0}));
}

}  // namespace
}  // namespace routescope::kernels::cuda
