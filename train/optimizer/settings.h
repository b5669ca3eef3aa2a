// The keys of a configuration that the optimizer reads. Member names are the keys.
#pragma once

#include <cstdint>
#include <string>

namespace routescope::train {

/// train.optimizer
struct OptimizerSettings {
  std::string rule = "adamw";   // a name in update_rule_names()
  double learning_rate = 3e-4;  // the peak of the schedule
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // of matrices and the embedding only
};

/// The keys of `distributed` that say how ranks share the parameters.
struct Sharding {
  std::int64_t zero = 1;        // 1: a rank holds state and f32 masters of its share of the matrices; 0: of everything
  std::int64_t bucket_mb = 64;  // size of a bucket of f32 numbers
};

}  // namespace routescope::train
