// Products by oneDNN, version 2 or 3. In a build with ROUTESCOPE_CPU off there are none.
#include "kernels/cpu/parts/product.h"

#ifndef ROUTESCOPE_ONEDNN

#include <stdexcept>

namespace routescope::kernels::cpu {

struct Product::Parts {};

const Product& Product::of(const ProductShape&) {
  throw std::runtime_error("this build has no CPU backend (ROUTESCOPE_CPU is OFF)");
}

Product::~Product() = default;
void Product::run(void*, const void*, const void*) const {}

bool Product::built() {
  return false;
}

}  // namespace routescope::kernels::cpu

#else

#include <omp.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

namespace routescope::kernels::cpu {

namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t leading, bool transposed, DType dtype) {
  return {{rows, columns}, type_of(dtype), transposed ? memory::dims{1, leading} : memory::dims{leading, 1}};
}

dnnl::matmul::primitive_desc describe(const ProductShape& s) {
  const memory::desc a = matrix(s.m, s.k, s.lda, s.transpose_a, s.operands);
  const memory::desc b = matrix(s.k, s.n, s.ldb, s.transpose_b, s.operands);
  const memory::desc c = matrix(s.m, s.n, s.ldc, false, s.result);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), a, b, c, attributes};
#else
  return {dnnl::matmul::desc(a, b, c), attributes, engine()};
#endif
}

struct Hash {
  std::size_t operator()(const ProductShape& s) const {
    std::size_t hash = 0;
    for (std::int64_t value : {s.m, s.n, s.k, s.lda, s.ldb, s.ldc, static_cast<std::int64_t>(s.operands),
                               static_cast<std::int64_t>(s.result), std::int64_t{s.transpose_a},
                               std::int64_t{s.transpose_b}, std::int64_t{s.accumulate}})
      hash = hash * 0x9E3779B97F4A7C15u + std::hash<std::int64_t>()(value);
    return hash;
  }
};

/// oneDNN's own scratch of this thread. It grows to a few packed panels, some megabytes at most.
void* scratchpad(std::size_t bytes) {
  thread_local std::vector<std::byte> pad;
  constexpr std::size_t kAlignment = 64;
  if (pad.size() < bytes + kAlignment) pad.resize(bytes + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(pad.data());
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace

struct Product::Parts {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul product;
  explicit Parts(const ProductShape& shape) : description(describe(shape)), product(description) {}
};

Product::Product(const ProductShape& shape) {
  // oneDNN asks OpenMP for the number of threads when it chooses a kernel and its blocks. Inside this region it is one.
  std::exception_ptr failed;
#pragma omp parallel num_threads(1)
  {
    omp_set_num_threads(1);
    try {
      parts_ = std::make_unique<Parts>(shape);
    } catch (...) {
      failed = std::current_exception();
    }
  }
  if (failed) std::rethrow_exception(failed);
}

Product::~Product() = default;

bool Product::built() {
  return true;
}

const Product& Product::of(const ProductShape& shape) {
  static std::mutex mutex;
  static std::unordered_map<ProductShape, std::unique_ptr<Product>, Hash> products;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Product>& entry = products[shape];
  if (!entry) entry = std::make_unique<Product>(shape);
  return *entry;
}

void Product::run(void* c, const void* a, const void* b) const {
  thread_local dnnl::stream stream(engine());
  const auto& description = parts_->description;
  const auto as_memory = [](const memory::desc& desc, const void* data) {
    return memory(desc, engine(), const_cast<void*>(data));
  };
  parts_->product.execute(
      stream, {{DNNL_ARG_SRC, as_memory(description.src_desc(), a)},
               {DNNL_ARG_WEIGHTS, as_memory(description.weights_desc(), b)},
               {DNNL_ARG_DST, as_memory(description.dst_desc(), c)},
               {DNNL_ARG_SCRATCHPAD,
                as_memory(description.scratchpad_desc(), scratchpad(description.scratchpad_desc().get_size()))}});
}

}  // namespace routescope::kernels::cpu

#endif
