#include "train/bench/card/device.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "train/bench/step/subject.h"

namespace routescope::train {

namespace {

constexpr int kMostSets = 32, kMostCalls = 2000;

}  // namespace

DeviceData::DeviceData(const BenchShape& shape) {
  const model::ModelConfig& model = shape.model;
  const std::int64_t d = model.hidden_size, packed = shape.attention().packed_width(),
                     gate_up = 2 * model.intermediate_size;
  const std::int64_t heads_width = model.num_attention_heads * model.head_dim;
  const std::int64_t widest = std::max({d, packed, gate_up, heads_width});
  const std::size_t bytes = kernels::workspace_bytes({.tokens = shape.tokens(),
                                                      .hidden_size = widest,
                                                      .sources = std::max<std::int64_t>(9, model.num_blocks + 1),
                                                      .product_k = std::max({widest, model.vocab_size, shape.tokens()}),
                                                      .product_n = std::max(widest, model.vocab_size),
                                                      .attention = shape.attention()},
                                                     kernels::Device::cuda);
  workspace_ = kernels::Buffer(bytes, kernels::Device::cuda);
  stream_ = {.device = kernels::Device::cuda,
             .workspace = static_cast<std::byte*>(workspace_.data()),
             .workspace_size = bytes};
}

kernels::Tensor DeviceData::random(kernels::DType dtype, std::initializer_list<std::int64_t> shape) {
  owned_.emplace_back(dtype, kernels::Device::cuda, shape);
  kernels::random_normal(owned_.back().tensor, 1.0, 1, ++sequence_, stream_);
  return owned_.back().tensor;
}

kernels::Tensor DeviceData::filled(kernels::DType dtype, std::initializer_list<std::int64_t> shape, double value) {
  owned_.emplace_back(dtype, kernels::Device::cuda, shape);
  kernels::fill(owned_.back().tensor, value, stream_);
  return owned_.back().tensor;
}

kernels::Tensor DeviceData::ids(std::int64_t count, std::int64_t below) {
  std::mt19937_64 random(++sequence_);
  std::vector<std::int32_t> host(static_cast<std::size_t>(count));
  for (std::int32_t& id : host) id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(below));
  owned_.emplace_back(kernels::DType::i32, kernels::Device::cuda, std::initializer_list<std::int64_t>{count});
  kernels::copy(owned_.back().tensor, kernels::Tensor(host.data(), kernels::DType::i32, kernels::Device::cpu, {count}),
                stream_);
  kernels::synchronize(stream_);
  return owned_.back().tensor;
}

void DeviceData::clear() {
  kernels::synchronize(stream_);
  owned_.clear();
}

int input_sets(double bytes, const Timing& timing) {
  if (bytes > 10 * timing.rotated_bytes) return 1;  // the cache holds only a small part of one set
  return std::clamp(static_cast<int>(std::ceil(timing.rotated_bytes / bytes)), 2, kMostSets);
}

double device_seconds(const kernels::Stream& stream, const Timing& timing, int sets,
                      const std::function<void(int)>& call) {
  kernels::StreamTimer timer;
  for (int set = 0; set < sets; ++set) call(set);
  timer.start(stream);
  for (int set = 0; set < sets; ++set) call(set);
  const double round = timer.stop(stream);
  // Whole rounds, so that every set has the same weight.
  const int rounds = static_cast<int>(std::clamp(timing.sample_seconds / std::max(round, 1e-9), 1.0,
                                                 std::max(1.0, static_cast<double>(kMostCalls) / sets)));
  std::vector<double> samples;
  for (int sample = 0; sample < timing.repetitions; ++sample) {
    timer.start(stream);
    for (int i = 0; i < rounds * sets; ++i) call(i % sets);
    samples.push_back(timer.stop(stream) / (rounds * sets));
  }
  return median(samples);
}

}  // namespace routescope::train
