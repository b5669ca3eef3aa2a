#include "train/plan/forecast.h"

#include <algorithm>
#include <vector>

#include "model/pass/parameters.h"
#include "train/optimizer/buckets.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

namespace {

constexpr double kF32 = 4, kBf16 = 2;
// Exchanges of host values in a step: loss, gradient norm and interruption; votes about signals and checkpoints. Each
// goes up a tree of the ranks and down again, in messages of kMessageBytes bytes with their envelope.
constexpr double kExchanges = 2, kMessageBytes = 1024;

/// Matrices that a pass uses together: the embedding, a layer, or the head.
struct Section {
  Stretch elements;
  double forward = 0, backward = 0;  // seconds of a pass

  bool overlaps(const Stretch& bucket) const { return elements.begin < bucket.end && bucket.begin < elements.end; }
};

/// The sections in the order of the flat array, which is the order of the forward pass.
std::vector<Section> sections(const TrainConfig& config, const ComputeTimes& times) {
  const ParameterCounts counts = count_parameters(config.model);
  std::vector<Section> out{{{0, counts.embedding}, 0, 0}};
  const auto add = [&out](std::int64_t elements, double forward, double backward) {
    const std::int64_t begin = out.back().elements.end;
    out.push_back({{begin, begin + elements}, forward, backward});
  };
  for (std::int64_t layer = 0; layer < config.model.num_hidden_layers; ++layer)
    add(counts.layer, times.layer_forward, times.layer_backward);
  // A tied head has no elements of its own: its gradient is complete when the embedding's is.
  add(counts.head, 0, times.head);
  return out;
}

/// Whether communication can run while a rank computes. Between processes on one machine of CPUs it cannot: the cores
/// that compute also copy the bytes.
bool can_hide(const Cluster& cluster, std::int64_t ranks) {
  return cluster.device == "cuda" || cluster.nodes(ranks) > 1;
}

/// Buckets are sent from the last to the first, each once the backward pass has completed all of it and the previous
/// bucket was sent. The time after the end of the pass is exposed.
void add_reduce_scatters(StepForecast& f, const std::vector<Section>& parts, const Buckets& buckets,
                         const Cluster& cluster) {
  std::vector<double> done(parts.size());  // when the backward pass has completed a section
  double backward = 0;
  for (std::size_t s = parts.size(); s-- > 0;) done[s] = backward += parts[s].backward;
  double channel = 0;
  for (std::size_t b = buckets.size(); b-- > 0;) {
    double ready = 0;
    for (std::size_t s = 0; s < parts.size(); ++s)
      if (parts[s].overlaps(buckets[b])) ready = std::max(ready, done[s]);
    const double seconds = sum_seconds(cluster, f.ranks, kF32 * static_cast<double>(buckets[b].size()));
    f.reduce_scatter += seconds;
    channel = std::max(channel, ready) + seconds;
  }
  f.reduce_scatter_exposed = can_hide(cluster, f.ranks) ? std::max(0.0, channel - backward) : f.reduce_scatter;
}

/// Buckets are sent from the first to the last, each once it is updated and the previous bucket was sent. The forward
/// pass starts after the update and waits for each section that has not arrived yet; this waiting is exposed.
void add_all_gathers(StepForecast& f, const std::vector<Section>& parts, const Buckets& buckets, const Cluster& cluster,
                     double element_bytes, double update_per_element) {
  std::vector<double> arrival(buckets.size());
  double updated = 0, channel = 0;
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    const auto elements = static_cast<double>(buckets[b].size());
    const double seconds = collective_seconds(cluster, f.ranks, element_bytes * elements);
    f.all_gather += seconds;
    updated += update_per_element * elements;
    arrival[b] = channel = std::max(channel, updated) + seconds;
  }
  if (!can_hide(cluster, f.ranks)) {
    f.all_gather_exposed = f.all_gather;
    return;
  }
  double pass = updated, alone = updated;  // end of the forward pass with the waiting, and without it
  for (const Section& part : parts) {
    for (std::size_t b = 0; b < buckets.size(); ++b)
      if (part.overlaps(buckets[b])) pass = std::max(pass, arrival[b]);
    pass += part.forward;
    alone += part.forward;
  }
  f.all_gather_exposed = pass - alone;
}

/// distributed.zero=0: the sums of gradients are gathered between the backward pass and the update. All of it is
/// exposed.
void add_gradient_gathers(StepForecast& f, const Buckets& buckets, const Cluster& cluster) {
  for (std::size_t b = 0; b < buckets.size(); ++b)
    f.all_gather += collective_seconds(cluster, f.ranks, kF32 * static_cast<double>(buckets[b].size()));
  f.all_gather_exposed = f.all_gather;
}

}  // namespace

ParameterCounts count_parameters(const model::ModelConfig& config) {
  ParameterCounts counts;
  const model::ParameterLayout layout(config);
  for (const model::ParameterInfo& info : layout.all()) {
    if (!info.decay) continue;
    if (info.name == "model.embed_tokens.weight") {
      counts.embedding = info.size;
    } else if (info.name == "lm_head.weight") {
      counts.head = info.size;
    } else if (info.name.starts_with("model.layers.0.")) {
      counts.layer += info.size;
    }
  }
  return counts;
}

ComputeTimes described_times(const TrainConfig& config, const Cluster& cluster) {
  const model::ModelConfig& m = config.model;
  const auto tokens = static_cast<double>(config.train.micro_batch * config.data.sequence_length);
  const double rate = cluster.flops_per_second * cluster.utilisation;
  const double products = 2 * static_cast<double>(count_parameters(m).layer) * tokens / rate;
  const double attention = 2 * static_cast<double>(m.num_attention_heads * m.head_dim) *
                           static_cast<double>(config.data.sequence_length + 1) * tokens / rate;
  const bool bf16 = config.precision == "bf16";
  ComputeTimes times;
  times.layer_forward = products + attention;
  times.layer_backward = 2 * times.layer_forward + (config.kernels.recompute == "attention" ? attention : 0);
  times.head = 6 * static_cast<double>(m.vocab_size * m.hidden_size) * tokens / rate;
  times.clear = kF32 / cluster.memory_bytes_per_second;
  // The norm reads the gradient. The update rule reads the gradient, the master and its state, and writes the last two.
  const auto slots = static_cast<double>(make_update_rule(config.train.optimizer)->slots().size());
  times.update = ((1 + 2 + slots + 1 + slots) * kF32 + (bf16 ? kBf16 : 0)) / cluster.memory_bytes_per_second;
  return times;
}

StepForecast forecast_step(const TrainConfig& config, const ComputeTimes& times, const Cluster& cluster,
                           std::int64_t ranks) {
  const std::int64_t layers = config.model.num_hidden_layers;
  const bool sharded = config.distributed.zero == 1;
  const std::int64_t passes = config.sequences_per_step() / config.train.micro_batch;
  const model::ParameterLayout layout(config.model, ranks);
  const auto matrices = static_cast<double>(layout.matrices_end());
  const auto vectors = static_cast<double>(layout.total() - layout.matrices_end());
  const double operand = sharded && config.precision == "bf16" ? kBf16 : kF32;

  StepForecast f;
  f.ranks = ranks;
  f.nodes = cluster.nodes(ranks);
  f.passes = (passes + ranks - 1) / ranks;
  f.compute = static_cast<double>(f.passes) * times.micro_batch(layers);

  const double share = sharded ? 1.0 / static_cast<double>(ranks) : 1.0;
  f.update = (matrices + vectors) * times.clear + (matrices * share + vectors) * times.update;
  if (ranks == 1) return f;

  const std::vector<Section> parts = sections(config, times);
  const Buckets buckets(layout.matrices_end(), config.distributed.bucket_mb, {.size = static_cast<int>(ranks)});
  add_reduce_scatters(f, parts, buckets, cluster);
  if (sharded) {
    add_all_gathers(f, parts, buckets, cluster, operand, share * times.update);
  } else {
    add_gradient_gathers(f, buckets, cluster);
  }
  f.vectors = sum_seconds(cluster, ranks, kF32 * vectors) + collective_seconds(cluster, ranks, kF32 * vectors);
  f.exchange = kExchanges * exchange_seconds(cluster, ranks);

  f.reduce_scatter_bytes = bytes_sent(ranks, kF32 * matrices);
  f.all_gather_bytes = bytes_sent(ranks, operand * matrices);
  f.vector_bytes = 2 * bytes_sent(ranks, kF32 * vectors);
  f.exchange_bytes = kExchanges * 2 * bytes_sent(ranks, kMessageBytes);
  return f;
}

}  // namespace routescope::train
