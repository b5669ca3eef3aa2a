#include "train/bench/step/products.h"

#include <algorithm>
#include <chrono>
#include <dnnl.hpp>
#include <functional>

#include "kernels/memory.h"

namespace routescope::train {

namespace {

constexpr int kRepeats = 2;

dnnl::memory::desc desc_of(std::int64_t rows, std::int64_t columns, kernels::Transpose transposed,
                           kernels::DType dtype) {
  const auto type = dtype == kernels::DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const dnnl::memory::dims strides =
      transposed == kernels::Transpose::yes ? dnnl::memory::dims{1, rows} : dnnl::memory::dims{columns, 1};
  return {{rows, columns}, type, strides};
}

/// Random numbers like activations. A processor multiplies zeros faster, because they cost less power.
kernels::OwnedTensor random_tensor(kernels::DType dtype, std::int64_t rows, std::int64_t columns,
                                   std::uint64_t sequence) {
  kernels::OwnedTensor values(kernels::DType::f32, kernels::Device::cpu, {rows, columns});
  kernels::random_normal(values.tensor, 1.0, 1, sequence, kernels::Stream{});
  if (dtype == kernels::DType::f32) return values;
  kernels::OwnedTensor out(dtype, kernels::Device::cpu, {rows, columns});
  kernels::cast(out.tensor, values.tensor, kernels::Stream{});
  return out;
}

struct Operands {
  Operands(const Product& p, kernels::DType dtype)
      : a(p.transpose_a == kernels::Transpose::yes ? random_tensor(dtype, p.k, p.m, 1)
                                                   : random_tensor(dtype, p.m, p.k, 1)),
        b(p.transpose_b == kernels::Transpose::yes ? random_tensor(dtype, p.n, p.k, 2)
                                                   : random_tensor(dtype, p.k, p.n, 2)),
        c(kernels::DType::f32, kernels::Device::cpu, {p.m, p.n}) {}
  kernels::OwnedTensor a, b, c;
};

}  // namespace

double best_seconds(const std::function<void()>& call) {
  call();
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

std::vector<Product> products_of_step(const model::ModelConfig& config, std::int64_t tokens, std::int64_t head_rows) {
  std::vector<Product> products;
  constexpr auto kNo = kernels::Transpose::no, kYes = kernels::Transpose::yes;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t out, std::int64_t in,
                       std::int64_t count) {
    products.push_back({name + " y = x W^T", rows, out, in, kNo, kYes, false, count});
    products.push_back({name + " dx = dy W", rows, in, out, kNo, kNo, false, count});
    products.push_back({name + " dW += dy^T x", out, in, rows, kYes, kNo, true, count});
  };
  const std::int64_t d = config.hidden_size, f = config.intermediate_size, layers = config.num_hidden_layers;
  const std::int64_t heads = config.num_attention_heads * config.head_dim;
  const std::int64_t packed = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
  add("qkv", tokens, packed, d, layers);
  add("o", tokens, d, heads, layers);
  add("gate_up", tokens, 2 * f, d, layers);
  add("down", tokens, d, f, layers);
  const std::int64_t whole_chunks = tokens / head_rows, rest = tokens % head_rows;
  add("head", head_rows, config.vocab_size, d, whole_chunks);
  if (rest > 0) add("head", rest, config.vocab_size, d, 1);
  return products;
}

double onednn_seconds(const Product& product, kernels::DType operands) {
  const Operands data(product, operands);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto a = desc_of(product.m, product.k, product.transpose_a, operands);
  const auto b = desc_of(product.k, product.n, product.transpose_b, operands);
  const auto c = desc_of(product.m, product.n, kernels::Transpose::no, kernels::DType::f32);
  const dnnl::matmul primitive(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), engine));
  dnnl::memory a_memory(a, engine, data.a.buffer.data()), b_memory(b, engine, data.b.buffer.data()),
      c_memory(c, engine, data.c.buffer.data());
  return best_seconds([&] {
    primitive.execute(stream, {{DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}});
    stream.wait();
  });
}

double matmul_seconds(const Product& product, kernels::DType operands, const kernels::Stream& stream) {
  const Operands data(product, operands);
  return best_seconds([&] {
    kernels::matmul(data.c.tensor, data.a.tensor, product.transpose_a, data.b.tensor, product.transpose_b,
                    product.accumulate, stream);
  });
}

}  // namespace routescope::train
