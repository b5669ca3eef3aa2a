// The CUDA backend in rare cases: views that start anywhere, every pair of types, ids that fill whole batches, late
// positions, predictions that hardly differ.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "tests/kernels/near_reference.h"

namespace routescope::testing {
namespace {

const kernels::Stream kCuda{.device = kernels::Device::cuda};

/// The same numbers in device memory.
kernels::OwnedTensor on_device(const kernels::Tensor& t) {
  kernels::OwnedTensor device =
      make_tensor(t.dtype, kernels::Device::cuda, {t.shape.begin(), t.shape.begin() + t.rank});
  kernels::copy(device.tensor, t, kCuda);
  return device;
}

kernels::OwnedTensor host_tensor(kernels::DType dtype, const std::vector<double>& values) {
  kernels::OwnedTensor out = make_tensor(dtype, kernels::Device::cpu, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) set(out.tensor, static_cast<std::int64_t>(i), values[i]);
  return out;
}

std::string bytes_of(const kernels::Tensor& t) {
  const kernels::OwnedTensor host = on_host(t);
  return {static_cast<const char*>(host.tensor.data), host.tensor.bytes()};
}

/// Numbers of all sizes, halfway cases of bf16 among them, zeros, infinities.
std::vector<double> numbers_of_all_sizes(std::int64_t count) {
  std::vector<double> out = random_numbers(count, 5, 1.0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 7 == 3) out[i] *= std::ldexp(1.0, static_cast<int>(i % 240) - 120);
    // Just beside the middle between two bf16 numbers: rounding twice, through f32, would go the wrong way.
    if (i % 7 == 5) out[i] = 1.0 + 0x1p-8 + (i % 2 ? 0x1p-40 : -0x1p-40);
  }
  out[0] = 0.0;
  out[1] = -0.0;
  out[2] = std::numeric_limits<double>::infinity();
  return out;
}

TEST(CudaCast, EveryPairOfTypesGivesTheReferencesBits) {
  const std::int64_t n = 1037;
  for (const kernels::DType from : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16}) {
    const kernels::OwnedTensor source = host_tensor(from, numbers_of_all_sizes(n));
    const kernels::OwnedTensor device_source = on_device(source.tensor);
    for (const kernels::DType to : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16}) {
      // One and three elements into the array: not on 16 bytes.
      for (const std::int64_t begin : {0, 1, 3}) {
        const kernels::OwnedTensor expected = make_tensor(to, kernels::Device::cpu, {n});
        const kernels::OwnedTensor device = make_tensor(to, kernels::Device::cuda, {n});
        kernels::fill(expected.tensor, 7.0, kernels::Stream{});
        kernels::fill(device.tensor, 7.0, kCuda);
        const std::int64_t count = n - begin - 1;
        kernels::cast(expected.tensor.slice(begin, {count}), source.tensor.slice(begin, {count}), kernels::Stream{});
        kernels::cast(device.tensor.slice(begin, {count}), device_source.tensor.slice(begin, {count}), kCuda);
        EXPECT_EQ(bytes_of(device.tensor), bytes_of(expected.tensor))
            << "from type " << static_cast<int>(from) << " to " << static_cast<int>(to) << ", begin " << begin;
      }
    }
  }
}

TEST(CudaFill, EveryTypeAndNothingBesideTheView) {
  const std::int64_t n = 133;
  for (const kernels::DType dtype :
       {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16, kernels::DType::i32}) {
    for (const std::int64_t begin : {0, 1, 5}) {
      const kernels::OwnedTensor expected = make_tensor(dtype, kernels::Device::cpu, {n});
      const kernels::OwnedTensor device = make_tensor(dtype, kernels::Device::cuda, {n});
      kernels::fill(expected.tensor, 3.0, kernels::Stream{});
      kernels::fill(device.tensor, 3.0, kCuda);
      kernels::fill(expected.tensor.slice(begin, {n - begin - 2}), -42.0, kernels::Stream{});
      kernels::fill(device.tensor.slice(begin, {n - begin - 2}), -42.0, kCuda);
      EXPECT_EQ(bytes_of(device.tensor), bytes_of(expected.tensor))
          << "type " << static_cast<int>(dtype) << ", begin " << begin;
    }
  }
}

TEST(CudaOptimizer, ViewsThatStartAnywhere) {
  const std::int64_t n = 4099, begin = 3, count = n - begin - 1;
  const kernels::AdamWParams params{
      .learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 2};
  const std::vector<double> start = random_numbers(n, 1), grads = random_numbers(n, 2, 3);
  std::vector<std::vector<double>> results[2];
  for (const kernels::Device device : {kernels::Device::cpu, kernels::Device::cuda}) {
    const kernels::DType dtype = device == kernels::Device::cpu ? kernels::DType::f64 : kernels::DType::f32;
    const kernels::Stream plain{.device = device};
    const auto tensor = [&](const std::vector<double>& values) {
      std::vector<double> as_float(values);
      for (double& value : as_float) value = rounded(value, kernels::DType::f32);
      kernels::OwnedTensor host = host_tensor(dtype, as_float);
      return device == kernels::Device::cpu ? std::move(host) : on_device(host.tensor);
    };
    const kernels::OwnedTensor param = tensor(start), mean = tensor(std::vector<double>(n, 0.0)),
                               mean_sq = tensor(std::vector<double>(n, 0.0)), grad = tensor(grads),
                               scale = tensor({0.7}), total(kernels::DType::f64, device, {1});
    const auto view = [&](const kernels::OwnedTensor& t) { return t.tensor.slice(begin, {count}); };
    const std::size_t bytes = kernels::workspace_bytes({.tokens = 1, .hidden_size = 1}, device);
    const kernels::OwnedTensor workspace =
        make_tensor(kernels::DType::f32, device, {static_cast<std::int64_t>(bytes / 4 + 1)});
    const kernels::Stream stream{device, nullptr, static_cast<std::byte*>(workspace.tensor.data), bytes};
    kernels::sum_of_squares(total.tensor, view(grad), stream);
    kernels::adamw(view(param), view(mean), view(mean_sq), view(grad), scale.tensor, params, plain);
    results[device == kernels::Device::cuda] = {values_of(param.tensor), values_of(mean.tensor),
                                                values_of(mean_sq.tensor), values_of(total.tensor)};
  }
  const double terms[] = {4, 4, 4, static_cast<double>(n)};
  for (std::size_t i = 0; i < std::size(terms); ++i)
    EXPECT_TRUE(near(results[1][i], results[0][i], {kernels::DType::f32, terms[i]}))
        << "result " << i << ", seed " << kSeed;
}

/// Ids of one batch, and the expected gradient of the embedding for them.
OpCase embedding_backward_case(const std::string& name, const std::vector<double>& ids, std::int64_t vocabulary) {
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const std::int64_t d = 24;
  return OpCase(name)
      .input("dout", Role::activation, {tokens, d})
      .given("ids", Role::ids, {tokens}, ids)
      .output("dweight", Role::real, {vocabulary, d}, static_cast<double>(tokens))
      .limits({.tokens = tokens, .hidden_size = d})
      .call([](const Tensors& r, const kernels::Stream& s) {
        kernels::embedding_backward(r["dweight"], r["dout"], r["ids"], s);
      });
}

class CudaEmbedding : public ::testing::TestWithParam<OpCase> {};

TEST_P(CudaEmbedding, GradientIsNearReference) {
  for (const Types& types : {kCudaFloat, kCudaBf16}) expect_near_reference(GetParam(), types);
}

std::vector<OpCase> embedding_cases() {
  std::vector<double> one(2500, 3.0), ascending(1025), descending(3100), runs;
  std::iota(ascending.begin(), ascending.end(), 0.0);
  for (std::size_t i = 0; i < descending.size(); ++i) descending[i] = static_cast<double>(descending.size() - 1 - i);
  // Ids of 31, 32, 33, 64, 65 tokens side by side: their ends meet those of the pieces of 32.
  double id = 0;
  for (const int length : {31, 1, 32, 33, 31, 64, 65, 63, 1, 1, 100, 28, 4}) {
    runs.insert(runs.end(), static_cast<std::size_t>(length), id);
    ++id;
  }
  return {embedding_backward_case("one_id", one, 5), embedding_backward_case("ascending", ascending, 1025),
          embedding_backward_case("descending", descending, 3100),
          embedding_backward_case("few_ids", random_ids(5000, 0, 7), 7), embedding_backward_case("runs", runs, 13)};
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaEmbedding, ::testing::ValuesIn(embedding_cases()),
                         [](const auto& test) { return test.param.name(); });

TEST(CudaRotary, PositionsTo32768) {
  const kernels::AttentionShape shape{.batch = 1, .seq_len = 32768, .heads = 1, .kv_heads = 1, .head_dim = 16};
  const std::int64_t width = shape.packed_width();
  const OpCase op = OpCase("qk_norm_rope")
                        .input("qkv", Role::activation, {shape.tokens(), width})
                        .given("gain", Role::real, {shape.head_dim}, std::vector<double>(16, 1.0))
                        .output("out", Role::activation, {shape.tokens(), width}, static_cast<double>(shape.head_dim))
                        .limits({.tokens = shape.tokens(), .attention = shape})
                        .call([=](const Tensors& r, const kernels::Stream& s) {
                          kernels::qk_norm_rope_forward(r["out"], r["qkv"], r["gain"], r["gain"], shape, 1e6, 1e-6, s);
                        });
  expect_near_reference(op, kCudaFloat);
}

TEST(CudaRotary, RefusesHeadsItCannotHold) {
  const kernels::AttentionShape shape{.batch = 1, .seq_len = 1, .heads = 1, .kv_heads = 1, .head_dim = 258};
  const kernels::OwnedTensor qkv = make_tensor(kernels::DType::f32, kernels::Device::cuda, {1, shape.packed_width()});
  const kernels::OwnedTensor gain = make_tensor(kernels::DType::f32, kernels::Device::cuda, {shape.head_dim});
  EXPECT_THROW(kernels::qk_norm_rope_forward(qkv.tensor, qkv.tensor, gain.tensor, gain.tensor, shape, 1e6, 1e-6, kCuda),
               std::invalid_argument);
}

/// Predictions that differ by `difference`: their divergence is about its square, and has to be right to the digits
/// that the difference of two logits has.
TEST(CudaCompareLogits, SmallDivergencesKeepTheirDigits) {
  const std::int64_t tokens = 3, vocabulary = 5003;
  const double difference = 1e-2;
  const kernels::OwnedTensor intact = make_tensor(kernels::DType::f64, kernels::Device::cpu, {tokens, vocabulary});
  const kernels::OwnedTensor ablated = make_tensor(kernels::DType::f64, kernels::Device::cpu, {tokens, vocabulary});
  const std::vector<double> logits = random_numbers(tokens * vocabulary, 1, 2);
  const std::vector<double> change = random_numbers(tokens * vocabulary, 2, difference);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double p = rounded(logits[i], kernels::DType::f32);
    set(intact.tensor, static_cast<std::int64_t>(i), p);
    set(ablated.tensor, static_cast<std::int64_t>(i), rounded(p + change[i], kernels::DType::f32));
  }
  const auto compare = [&](kernels::DType dtype, kernels::Device device) {
    const kernels::Stream stream{.device = device};
    const auto as = [&](const kernels::Tensor& t) {
      kernels::OwnedTensor host = make_tensor(dtype, kernels::Device::cpu, {tokens, vocabulary});
      kernels::cast(host.tensor, t, kernels::Stream{});
      return device == kernels::Device::cpu ? std::move(host) : on_device(host.tensor);
    };
    const kernels::OwnedTensor p = as(intact.tensor), q = as(ablated.tensor);
    const kernels::OwnedTensor kl = make_tensor(dtype, device, {tokens}), agree = make_tensor(dtype, device, {tokens});
    kernels::compare_logits(kl.tensor, agree.tensor, p.tensor, q.tensor, stream);
    return values_of(kl.tensor);
  };
  const std::vector<double> expected = compare(kernels::DType::f64, kernels::Device::cpu),
                            actual = compare(kernels::DType::f32, kernels::Device::cuda);
  // A logit of size 4 is off by 2^-23 of that, the terms' square roots by as much of `difference`.
  const double relative = kSafety * 4 * 0x1p-23 / difference;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_GT(expected[i], 0.1 * difference * difference);
    EXPECT_NEAR(actual[i], expected[i], relative * expected[i]) << "token " << i << ", seed " << kSeed;
  }
}

TEST(CudaCompareLogits, TheFirstOfEqualsIsTheLargest) {
  const std::int64_t vocabulary = 4099;
  const auto agrees = [&](const std::vector<double>& p, const std::vector<double>& q) {
    const kernels::OwnedTensor intact = on_device(host_tensor(kernels::DType::f32, p).tensor);
    const kernels::OwnedTensor ablated = on_device(host_tensor(kernels::DType::f32, q).tensor);
    const kernels::OwnedTensor kl = make_tensor(kernels::DType::f32, kernels::Device::cuda, {1}),
                               agree = make_tensor(kernels::DType::f32, kernels::Device::cuda, {1});
    kernels::compare_logits(kl.tensor, agree.tensor, intact.tensor.view({1, vocabulary}),
                            ablated.tensor.view({1, vocabulary}), kCuda);
    return values_of(agree.tensor)[0];
  };
  // In one piece of 16 bytes, in one thread's next piece, in another thread, in another warp.
  for (const auto& [low, high] : {std::pair(9, 10), {9, 2057}, {9, 21}, {2100, 4097}, {7, 3000}}) {
    std::vector<double> first(vocabulary, 0.5), second(vocabulary, 0.5), both(vocabulary, 0.5);
    first[static_cast<std::size_t>(low)] = both[static_cast<std::size_t>(low)] = 2.0;
    second[static_cast<std::size_t>(high)] = both[static_cast<std::size_t>(high)] = 2.0;
    EXPECT_EQ(agrees(both, first), 1.0) << low << " and " << high;
    EXPECT_EQ(agrees(both, second), 0.0) << low << " and " << high;
    EXPECT_EQ(agrees(second, second), 1.0) << low << " and " << high;
  }
}

}  // namespace
}  // namespace routescope::testing
