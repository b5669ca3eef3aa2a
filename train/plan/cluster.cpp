#include "train/plan/cluster.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "train/config/config_keys.h"

namespace routescope::train {

namespace {

/// Steps of a binomial tree.
double levels(std::int64_t members) {
  return static_cast<double>(std::bit_width(static_cast<std::uint64_t>(members - 1)));
}

/// Ranks of the first node, which has the most.
std::int64_t largest_node(const Cluster& cluster, std::int64_t ranks) {
  return std::min(ranks, cluster.devices_per_node);
}

/// Bytes a second at which a pipelined collective proceeds. On one node this is the rate of a link within the node.
/// Between nodes the rings of a node use the links of all its devices together.
double pipeline_rate(const Cluster& cluster, std::int64_t ranks) {
  const double inside = cluster.intra_node.bytes_per_second, outside = cluster.inter_node.bytes_per_second;
  if (cluster.nodes(ranks) == 1) return inside;
  const auto local = static_cast<double>(largest_node(cluster, ranks));
  return local > 1 ? std::min(inside, local * outside) : outside;
}

}  // namespace

Cluster unknown_cluster(std::int64_t ranks) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Link immediate{.latency_seconds = 0, .bytes_per_second = kInfinity};
  return {.name = "CUDA devices, links not known",
          .devices_per_node = ranks,
          .memory_bytes_per_second = kInfinity,
          .intra_node = immediate,
          .inter_node = immediate};
}

Cluster load_cluster(const std::filesystem::path& file) {
  Cluster c;
  const auto positive = [](double x) { return x > 0; };
  const auto rate = [&](std::string path, double& value) {
    return config_key::real(std::move(path), value, "a number above 0", positive);
  };
  std::vector<ConfigKey> keys{
      config_key::text("name", c.name, "a text"),
      config_key::word("device", c.device, {"cpu", "cuda"}),
      config_key::integer("devices_per_node", c.devices_per_node, 1),
      rate("flops_per_second", c.flops_per_second),
      config_key::real("utilisation", c.utilisation, "a number above 0, at most 1",
                       [](double x) { return x > 0 && x <= 1; }),
      rate("memory_bytes", c.memory_bytes),
      rate("memory_bytes_per_second", c.memory_bytes_per_second),
  };
  for (auto [name, link] : {std::pair{"intra_node", &c.intra_node}, std::pair{"inter_node", &c.inter_node}}) {
    keys.push_back(config_key::real(std::string(name) + ".latency_seconds", link->latency_seconds,
                                    "a number of at least 0", [](double x) { return x >= 0; }));
    keys.push_back(rate(std::string(name) + ".bytes_per_second", link->bytes_per_second));
  }
  read_every_key(file, keys);
  return c;
}

double bytes_sent(std::int64_t ranks, double bytes) {
  return bytes * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
}

double ring_seconds(const Cluster& cluster, std::int64_t ranks, double bytes) {
  if (ranks == 1) return 0;
  const std::int64_t between = cluster.nodes(ranks) - 1, within = ranks - 1 - between;
  return static_cast<double>(within) * cluster.intra_node.latency_seconds +
         static_cast<double>(between) * cluster.inter_node.latency_seconds +
         bytes_sent(ranks, bytes) / pipeline_rate(cluster, ranks);
}

double tree_seconds(const Cluster& cluster, std::int64_t ranks, double bytes) {
  if (ranks == 1) return 0;
  return levels(largest_node(cluster, ranks)) * cluster.intra_node.latency_seconds +
         levels(cluster.nodes(ranks)) * cluster.inter_node.latency_seconds +
         bytes_sent(ranks, bytes) / pipeline_rate(cluster, ranks);
}

double all_to_all_seconds(const Cluster& cluster, std::int64_t ranks, double bytes) {
  if (ranks == 1) return 0;
  const std::int64_t within = largest_node(cluster, ranks) - 1, between = ranks - 1 - within;
  const double part = bytes / static_cast<double>(ranks);
  const auto link_seconds = [part](const Link& link, std::int64_t messages) {
    return static_cast<double>(messages) * (link.latency_seconds + part / link.bytes_per_second);
  };
  // Both kinds of link work at the same time. Latencies add up, because the host sends one message after another.
  return std::max(link_seconds(cluster.intra_node, within), link_seconds(cluster.inter_node, between));
}

double exchange_seconds(const Cluster& cluster, std::int64_t ranks) {
  return 2 * tree_seconds(cluster, ranks, 0);
}

double collective_seconds(const Cluster& cluster, std::int64_t ranks, double bytes) {
  if (cluster.device == "cpu") return all_to_all_seconds(cluster, ranks, bytes);
  const double ring = ring_seconds(cluster, ranks, bytes);
  return cluster.devices_per_node == 1 ? std::min(ring, tree_seconds(cluster, ranks, bytes)) : ring;
}

double sum_seconds(const Cluster& cluster, std::int64_t ranks, double bytes) {
  const double seconds = collective_seconds(cluster, ranks, bytes);
  return cluster.device == "cpu" && ranks > 1 ? seconds + bytes / cluster.memory_bytes_per_second : seconds;
}

}  // namespace routescope::train
