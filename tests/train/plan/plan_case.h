// A cluster of round numbers, its description as a file, and a model for it.
#pragma once

#include "train/config/config.h"
#include "train/plan/cluster.h"

namespace routescope::testing {

/// Round numbers, so that expected times can be computed by hand.
inline train::Cluster round_cluster() {
  return {.name = "round",
          .device = "cuda",
          .devices_per_node = 4,
          .flops_per_second = 1e12,
          .utilisation = 0.5,
          .memory_bytes = 1e12,
          .memory_bytes_per_second = 1e12,
          .intra_node = {1e-6, 100e9},
          .inter_node = {10e-6, 10e9}};
}

inline constexpr const char* cluster_file = R"(name: two machines
device: cpu
devices_per_node: 2
flops_per_second: 1e11
utilisation: 0.5
memory_bytes: 16e9
memory_bytes_per_second: 2e10
intra_node: {latency_seconds: 1e-5, bytes_per_second: 5e9}
inter_node: {latency_seconds: 5e-5, bytes_per_second: 1e9}
)";

/// Ten layers of 1 Mi elements of matrices, an embedding of 2 Mi, a few vectors; sixteen micro-batches.
inline train::TrainConfig forecast_config() {
  train::TrainConfig config;
  config.device = "cuda";
  config.precision = "bf16";
  config.model.vocab_size = 4096;
  config.model.hidden_size = 512;
  config.model.intermediate_size = 512;
  config.model.num_hidden_layers = 10;
  config.model.num_attention_heads = 8;
  config.model.num_key_value_heads = 8;
  config.model.head_dim = 32;
  config.model.max_position_embeddings = 1024;
  config.model.tie_word_embeddings = true;
  config.data.sequence_length = 128;
  config.train.tokens_per_step = 16 * 128;
  config.train.micro_batch = 1;
  config.distributed.bucket_mb = 4;
  return config;
}

}  // namespace routescope::testing
