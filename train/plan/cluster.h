// A described cluster: what a plan for many ranks computes with instead of a measurement. One YAML file
// (configs/clusters/), every key of which has its unit in its name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace routescope::train {

/// What a message takes from one device to another: latency + bytes / bytes_per_second (the alpha-beta model).
struct Link {
  double latency_seconds = 0;
  double bytes_per_second = 0;  // of one device, in one direction
};

struct Cluster {
  std::string name;
  std::string device = "cuda";         // cuda | cpu: a rank is one of these
  std::int64_t devices_per_node = 1;   // ranks that share a machine
  double flops_per_second = 0;         // of one device: the peak of matrix products in the precision planned for
  double utilisation = 1;              // share of it that forward and backward passes reach, model FLOP over time
  double memory_bytes = 0;             // of one device (cpu: of the machine, per rank)
  double memory_bytes_per_second = 0;  // of one device; what the optimizer's update takes is reckoned from it
  Link intra_node, inter_node;

  /// Machines that `ranks` ranks take.
  std::int64_t nodes(std::int64_t ranks) const { return (ranks + devices_per_node - 1) / devices_per_node; }
};

/// CUDA devices, as many as there are ranks, of which neither rates nor links are known: what goes between them takes
/// no time.
Cluster unknown_cluster(std::int64_t ranks);

/// Reads a cluster's description. Every key is required. Throws Error with file, line, key, what was found and what was
/// expected; for an unknown key the nearest known one.
Cluster load_cluster(const std::filesystem::path& file);

// ---- Seconds of one collective among `ranks` ranks, `bytes` of them all together; 0 for one rank. Nodes are filled
// one after another. The formulae stand in train/README.md, "The plan". ----

/// Reduce-scatter or all-gather around a ring, as NCCL runs them: pieces wander ranks - 1 steps, all links busy.
double ring_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// The same along a binomial tree: as many bytes, log2 as many steps.
double tree_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// The same by messages from every rank to every other at once, as the MPI communicator sends them.
double all_to_all_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);
/// A few host values summed over all ranks and known to all afterwards: up a tree and down again.
double exchange_seconds(const Cluster& cluster, std::int64_t ranks);

/// The algorithm that a reduce-scatter or an all-gather of `bytes` runs by on this cluster: on CPUs the messages, on
/// CUDA the ring, or the tree where that is faster and a node holds one device (NCCL's condition for it).
double collective_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);

/// The same for a reduce-scatter with its sums: on CPUs a rank also adds up what came, `bytes` of it.
double sum_seconds(const Cluster& cluster, std::int64_t ranks, double bytes);

/// What one rank sends in a reduce-scatter or an all-gather of `bytes`, by any of the three.
double bytes_sent(std::int64_t ranks, double bytes);

}  // namespace routescope::train
