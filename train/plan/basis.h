// What a plan is computed from: a description of a cluster, or measurements on this machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "train/config/config.h"
#include "train/plan/calibrate.h"
#include "train/plan/cluster.h"

namespace routescope::train {

class Basis {
 public:
  /// Without a described cluster measures this machine for about `seconds`, with as many threads as `world_size` ranks
  /// have together. `config` must be resolved.
  Basis(const TrainConfig& config, std::int64_t world_size, double seconds, const std::optional<Cluster>& described);

  /// Whether times of computation are known.
  bool timed(const TrainConfig& config) const;
  /// Whether times of communication are known.
  bool connected(const TrainConfig& config) const { return described_ || config.device == "cpu"; }
  bool measured() const { return !described_; }

  /// How much longer a rank takes here than the measurement did: one of `ranks` ranks has fewer of this machine's
  /// cores.
  double slowdown(std::int64_t ranks) const;
  ComputeTimes times(const TrainConfig& config, std::int64_t ranks) const;
  Cluster cluster(const TrainConfig& config, std::int64_t ranks) const;

  /// Bytes that one of `ranks` ranks may use; 0: not known.
  std::size_t available(const TrainConfig& config, std::int64_t ranks) const;
  /// Memory of the program itself, on the CPU.
  std::size_t process_bytes(const TrainConfig& config) const { return config.device == "cpu" ? process_bytes_ : 0; }

 private:
  std::optional<Cluster> described_;
  Calibration calibration_;
  std::size_t process_bytes_ = 0;
  int threads_ = 1, processors_ = 1, timed_threads_ = 0;
};

}  // namespace routescope::train
