// Arguments that do not fit are refused with one line that says what was found and what was expected; memory that runs
// out says so too.
#include <gtest/gtest.h>

#include <string>

#include "tests/kernels/op_case.h"

namespace routescope::testing {
namespace {

const kernels::Stream kStream;

kernels::OwnedTensor f32(std::initializer_list<std::int64_t> shape) {
  return {kernels::DType::f32, kernels::Device::cpu, shape};
}

template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Checks, SayWhatWasFoundAndExpected) {
  const kernels::OwnedTensor a = f32({3, 4}), b = f32({5, 6}), c = f32({3, 6});
  EXPECT_EQ(refusal([&] {
              kernels::matmul(c.tensor, a.tensor, kernels::Transpose::no, b.tensor, kernels::Transpose::no, false,
                              kStream);
            }),
            "matmul: b is f32 [5, 6], expected f32 or bf16 [4, 6]");
  const kernels::OwnedTensor dst = f32({4}), src(kernels::DType::f64, kernels::Device::cpu, {4});
  EXPECT_EQ(refusal([&] { kernels::add(dst.tensor, src.tensor, kStream); }), "add: src is f64 [4], expected f32 [4]");
  EXPECT_EQ(refusal([&] { kernels::add(dst.tensor, kernels::Tensor(), kStream); }),
            "add: src is undefined, expected f32 [4]");
  EXPECT_EQ(refusal([&] { kernels::add(kernels::Tensor(), dst.tensor, kStream); }),
            "add: a required tensor is undefined");
}

TEST(Checks, MatmulRefusesMixedOperandsAndBf16Accumulation) {
  const kernels::OwnedTensor a = f32({3, 4}), b(kernels::DType::bf16, kernels::Device::cpu, {4, 6}), c = f32({3, 6});
  EXPECT_EQ(refusal([&] {
              kernels::matmul(c.tensor, a.tensor, kernels::Transpose::no, b.tensor, kernels::Transpose::no, false,
                              kStream);
            }),
            "matmul: expected a and b of one type");
  const kernels::OwnedTensor a16(kernels::DType::bf16, kernels::Device::cpu, {3, 4}),
      c16(kernels::DType::bf16, kernels::Device::cpu, {3, 6});
  EXPECT_EQ(refusal([&] {
              kernels::matmul(c16.tensor, a16.tensor, kernels::Transpose::no, b.tensor, kernels::Transpose::no, true,
                              kStream);
            }),
            "matmul: c is bf16 [3, 6], expected f32 [3, 6]");
}

TEST(Checks, IdsWithinTheVocabulary) {
  const kernels::OwnedTensor out = f32({2, 4}), weight = f32({5, 4}),
                             ids(kernels::DType::i32, kernels::Device::cpu, {2});
  ids.tensor.as<std::int32_t>()[1] = 5;
  EXPECT_EQ(refusal([&] { kernels::embedding_forward(out.tensor, ids.tensor, weight.tensor, kStream); }),
            "embedding_forward: ids[1] is 5, expected at least 0 and less than the vocabulary, 5");
  EXPECT_NE(refusal([&] { kernels::embedding_backward(weight.tensor, out.tensor, ids.tensor, kStream); }), "accepted");
  const kernels::OwnedTensor nll = f32({2}), logits = f32({2, 5});
  ids.tensor.as<std::int32_t>()[1] = -2;
  EXPECT_EQ(
      refusal([&] { kernels::cross_entropy(nll.tensor, kernels::Tensor(), logits.tensor, ids.tensor, 1, kStream); }),
      "cross_entropy: targets[1] is -2, expected at least -1 and less than the vocabulary, 5");
}

TEST(Checks, AttentionGeometry) {
  const auto forward = [](const kernels::AttentionShape& shape) {
    const kernels::OwnedTensor qkv = f32({4, 32}), out = f32({4, 16}), lse = f32({1, 4, 4});
    return refusal([&] { kernels::attention_forward(out.tensor, lse.tensor, qkv.tensor, shape, kStream); });
  };
  EXPECT_EQ(forward({.batch = 1, .seq_len = 4, .heads = 4, .kv_heads = 3, .head_dim = 4}),
            "attention_forward: expected heads (4) to be a multiple of kv_heads (3)");
  EXPECT_EQ(forward({.batch = 1, .seq_len = 4, .heads = 4, .kv_heads = 2, .head_dim = 5}),
            "attention_forward: expected an even head_dim, found 5");
  EXPECT_EQ(forward({.batch = 1, .seq_len = 4, .heads = 4, .kv_heads = 1, .head_dim = 4}),
            "attention_forward: qkv is f32 [4, 32], expected f32 [4, 24]");
}

TEST(Checks, ReadsNeedOneScalePerSource) {
  const kernels::OwnedTensor p = f32({2, 4}), s = f32({2}), wide = f32({2, 2}), gain = f32({4});
  const kernels::AttnResState state{p.tensor, s.tensor, wide.tensor, wide.tensor, s.tensor};
  const kernels::AttnResParams params{gain.tensor,       gain.tensor, kernels::Tensor(),
                                      kernels::Tensor(), gain.tensor, 1e-6};
  const auto read = [&](std::vector<kernels::Tensor> values, std::vector<kernels::Tensor> scales) {
    return refusal([&] {
      kernels::attn_res_forward(p.tensor, state, kernels::Tensor(), p.tensor, {values, scales}, params,
                                kernels::Tensor(), kStream);
    });
  };
  EXPECT_EQ(read({p.tensor}, {}), "attn_res_forward: expected as many inv_rms as values of sources");
  EXPECT_EQ(read({}, {}), "attn_res_forward: state.score is f32 [2, 2], expected f32 [2, 1]");
  EXPECT_EQ(read({gain.tensor}, {s.tensor}), "attn_res_forward: sources.values is f32 [4], expected f32 [2, 4]");
}

TEST(Checks, WithoutADeviceItsMemoryIsRefused) {
  if (kernels::cuda_available()) GTEST_SKIP() << "this machine has a CUDA device";
  EXPECT_THROW(kernels::Buffer(16, kernels::Device::cuda), std::runtime_error);
  EXPECT_THROW(kernels::device_info(), std::runtime_error);
  EXPECT_THROW(kernels::OwnedStream{kernels::Device::cuda}, std::runtime_error);
  const kernels::PinnedBuffer pinned(16);  // ordinary memory then
  EXPECT_NE(pinned.data(), nullptr);
}

TEST(Checks, WithoutTheBackendItsOperationsAreRefused) {
  if (kernels::cuda_built()) GTEST_SKIP() << "this build has the CUDA backend";
  EXPECT_FALSE(kernels::cuda_available());
  kernels::Tensor t = f32({4}).tensor;
  t.device = kernels::Device::cuda;
  EXPECT_THROW(kernels::fill(t, 0, kStream), std::runtime_error);
  EXPECT_THROW(kernels::workspace_bytes(kernels::WorkspaceLimits{}, kernels::Device::cuda), std::runtime_error);
}

TEST(Checks, WorkspaceTooSmall) {
  const kernels::OwnedTensor x = f32({4, 8}), gain = f32({8}), s = f32({4});
  EXPECT_THROW(
      kernels::add_rms_norm_backward(x.tensor, gain.tensor, x.tensor, x.tensor, s.tensor, gain.tensor, kStream),
      std::logic_error);
}

TEST(Memory, ArenaPlansWhatItThenHands) {
  const auto layout = [](kernels::Arena& arena) {
    arena.begin_part("weights");
    const kernels::Tensor a = arena.take(kernels::DType::f32, {3, 5});
    arena.begin_part("gradients");
    const kernels::Tensor b = arena.take(kernels::DType::bf16, {7}), empty = arena.take(kernels::DType::f32, {0, 4}),
                          c = arena.take(kernels::DType::i32, {1});
    return std::vector<kernels::Tensor>{a, b, empty, c};
  };
  kernels::Arena plan(kernels::Device::cpu);
  EXPECT_TRUE(plan.planning());
  for (const kernels::Tensor& t : layout(plan)) EXPECT_TRUE(t.defined());
  kernels::Arena arena(kernels::Device::cpu, plan.bytes());
  const std::vector<kernels::Tensor> tensors = layout(arena);
  EXPECT_EQ(arena.bytes(), plan.bytes());
  ASSERT_EQ(arena.parts().size(), 2u);
  EXPECT_EQ(arena.parts()[0].name, "weights");
  EXPECT_EQ(arena.parts()[0].bytes + arena.parts()[1].bytes, arena.bytes());
  for (const kernels::Tensor& t : tensors) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.data) % 256, 0u);
    for (std::int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(get(t, i), 0);
  }
  // No two share an element.
  for (std::int64_t i = 0; i < 15; ++i) set(tensors[0], i, 1);
  for (std::int64_t i = 0; i < 7; ++i) EXPECT_EQ(get(tensors[1], i), 0);
  EXPECT_THROW(arena.take(kernels::DType::f32, {1}), std::logic_error);
}

TEST(Memory, BufferMovesItsMemory) {
  kernels::Buffer a(3 << 20, kernels::Device::cpu);
  static_cast<char*>(a.data())[(3 << 20) - 1] = 1;
  void* where = a.data();
  kernels::Buffer b(std::move(a));
  EXPECT_EQ(b.data(), where);
  kernels::Buffer c(16, kernels::Device::cpu);
  c = std::move(b);
  EXPECT_EQ(c.data(), where);
  EXPECT_EQ(c.bytes(), std::size_t{3} << 20);
  EXPECT_EQ(static_cast<char*>(c.data())[(3 << 20) - 1], 1);
}

}  // namespace
}  // namespace routescope::testing
