#include "train/bench/card/rates.h"

#include <exception>
#include <stdexcept>
#include <utility>

#include "kernels/attention_kernel.h"
#include "train/bench/step/products.h"

namespace routescope::train {

namespace {

/// Measures the calls that `make` returns, one for each input set of `bytes`. A failure becomes the result's error.
template <class Make>
void measure(std::vector<Rate>& rates, Rate rate, double bytes, DeviceData& data, const Timing& timing,
             const RateReport& report, Make make) {
  try {
    std::vector<std::function<void()>> calls;
    for (int set = 0; set < input_sets(bytes, timing); ++set) calls.push_back(make());
    rate.seconds = device_seconds(data.stream(), timing, static_cast<int>(calls.size()),
                                  [&](int set) { calls[static_cast<std::size_t>(set)](); });
    data.clear();
  } catch (const std::exception& error) {
    rate.error = error.what();
    data.clear();
  }
  rates.push_back(rate);
  report(rate);
}

/// Restores the process-wide attention kernel at its end.
struct RestoreKernel {
  kernels::AttentionKernel kernel = kernels::attention_kernel();
  RestoreKernel() = default;
  RestoreKernel(const RestoreKernel&) = delete;
  RestoreKernel& operator=(const RestoreKernel&) = delete;
  ~RestoreKernel() { kernels::set_attention_kernel(kernel); }
};

void attention_rates_of(const std::string& kernel, std::vector<Rate>& rates, const BenchShape& shape, DeviceData& data,
                        const Timing& timing, const RateReport& report) {
  const kernels::AttentionShape attention = shape.attention();
  const std::int64_t tokens = shape.tokens(), packed = attention.packed_width();
  const std::int64_t width = attention.heads * attention.head_dim;
  const double product = static_cast<double>(tokens * width) * static_cast<double>(attention.seq_len + 1);
  const double bytes =
      static_cast<double>(tokens * (packed + width)) * static_cast<double>(kernels::size_of(shape.activations));
  const kernels::DType type = shape.activations;
  const auto lse = [&] {
    return data.filled(kernels::DType::f32, {attention.batch, attention.heads, attention.seq_len}, 1.0);
  };
  const std::int64_t layers = shape.model.num_hidden_layers;
  measure(rates, {.name = "attention_forward, " + kernel, .flops = 2 * product, .count = layers, .error = {}}, bytes,
          data, timing, report, [&] {
            return [attention, stream = data.stream(), out = data.filled(type, {tokens, width}, 1.0), lse = lse(),
                    qkv = data.random(type, {tokens, packed})] {
              kernels::attention_forward(out, lse, qkv, attention, stream);
            };
          });
  measure(rates, {.name = "attention_backward, " + kernel, .flops = 5 * product, .count = layers, .error = {}}, bytes,
          data, timing, report, [&] {
            const kernels::Tensor out = data.filled(type, {tokens, width}, 1.0), log_sum = lse();
            const kernels::Tensor qkv = data.random(type, {tokens, packed});
            kernels::attention_forward(out, log_sum, qkv, attention, data.stream());
            return [attention, stream = data.stream(), dqkv = data.filled(type, {tokens, packed}, 1.0),
                    dout = data.random(type, {tokens, width}), out, log_sum,
                    qkv] { kernels::attention_backward(dqkv, dout, out, log_sum, qkv, attention, stream); };
          });
}

}  // namespace

std::vector<Rate> attention_rates(const BenchShape& shape, const Timing& timing, const RateReport& report) {
  DeviceData data(shape);
  std::vector<Rate> rates;
  const RestoreKernel restore;
  for (const auto& [kernel, name] :
       {std::pair(kernels::AttentionKernel::builtin, "builtin"), std::pair(kernels::AttentionKernel::cudnn, "cudnn")}) {
    try {
      kernels::set_attention_kernel(kernel);
    } catch (const std::runtime_error&) {
      continue;  // not in this build
    }
    attention_rates_of(name, rates, shape, data, timing, report);
  }
  return rates;
}

std::vector<Rate> product_rates(const BenchShape& shape, const Timing& timing, const RateReport& report) {
  DeviceData data(shape);
  std::vector<Rate> rates;
  const kernels::DType type = shape.activations;
  for (const Product& p : products_of_step(shape.model, shape.tokens(), shape.head_rows)) {
    const double bytes =
        static_cast<double>(p.m * p.k + p.k * p.n + p.m * p.n) * static_cast<double>(kernels::size_of(type));
    measure(rates, {.name = p.name, .flops = p.flops(), .count = p.count, .error = {}}, bytes, data, timing, report,
            [&] {
              const bool ta = p.transpose_a == kernels::Transpose::yes, tb = p.transpose_b == kernels::Transpose::yes;
              return [p, stream = data.stream(), a = data.random(type, {ta ? p.k : p.m, ta ? p.m : p.k}),
                      b = data.random(type, {tb ? p.n : p.k, tb ? p.k : p.n}),
                      c = data.filled(p.accumulate ? kernels::DType::f32 : type, {p.m, p.n}, 1.0)] {
                kernels::matmul(c, a, p.transpose_a, b, p.transpose_b, p.accumulate, stream);
              };
            });
  }
  return rates;
}

double combined_rate(const std::vector<Rate>& rates) {
  double flops = 0, seconds = 0;
  for (const Rate& rate : rates) {
    if (!rate.error.empty()) return 0;
    flops += static_cast<double>(rate.count) * rate.flops;
    seconds += static_cast<double>(rate.count) * rate.seconds;
  }
  return seconds > 0 ? flops / seconds : 0;
}

}  // namespace routescope::train
