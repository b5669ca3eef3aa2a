// The description of a cluster, from which a plan is computed without measuring anything. A YAML file
// (configs/clusters/); every key has its unit in its name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace routescope::train {

/// A message from one device to another takes latency + bytes / bytes_per_second (the alpha-beta model).
struct Link {
  double latency_seconds = 0;
  double bytes_per_second = 0;  // of one device, in one direction
};

struct Cluster {
  std::string name;
  std::string device = "cuda";         // cuda | cpu: what a rank runs on
  std::int64_t devices_per_node = 1;   // ranks that share a machine
  double flops_per_second = 0;         // of one device: the peak of matrix products in the precision planned for
  double utilisation = 1;              // share of that rate that passes reach: model FLOP over time
  double memory_bytes = 0;             // of one device (cpu: of the machine, per rank)
  double memory_bytes_per_second = 0;  // of one device; the time of the update follows from it
  Link intra_node, inter_node;

  /// Number of machines for `ranks` ranks.
  std::int64_t nodes(std::int64_t ranks) const { return (ranks + devices_per_node - 1) / devices_per_node; }
};

/// `ranks` CUDA devices with unknown rates and links: communication between them takes no time.
Cluster unknown_cluster(std::int64_t ranks);

/// Reads a description. Every key is required. Throws Error with file, line, key, what was found and what was expected;
/// for an unknown key with the nearest known one.
Cluster load_cluster(const std::filesystem::path& file);

// ---- Seconds of one collective among `ranks` ranks. `bytes` is the size of the whole array; 0 for one rank. Nodes are
// filled one after another. The formulas are in train/plan/README.md. ----

/// Reduce-scatter or all-gather around a ring, as NCCL does it: pieces go ranks - 1 steps, with all links busy.
double ring_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// Along a binomial tree: the same bytes in log2(ranks) steps.
double tree_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// By messages from every rank to every other rank at once, as the MPI communicator sends them.
double all_to_all_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// A few host values are summed over all ranks and returned to all: up a tree and down again.
double exchange_seconds(const Cluster& cluster, std::int64_t ranks);

/// Reduce-scatter or all-gather by the algorithm that this cluster uses: messages on CPUs; on CUDA the ring, or the
/// tree if it is faster and a node holds one device (NCCL's condition).
double collective_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);

/// collective_seconds() of a reduce-scatter with its sums: on CPUs a rank also adds up the `bytes` that it received.
double sum_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);

/// Bytes that one rank sends in a reduce-scatter or an all-gather, by any of the three algorithms.
double bytes_sent(std::int64_t ranks, double bytes);

}  // namespace routescope::train
