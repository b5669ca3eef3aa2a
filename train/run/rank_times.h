// Which rank others wait for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/records/routing_rows.h"

namespace routescope::train {

/// The times of ranks over the steps of a run (data/formats/routing.md, /train/slowest_rank).
class RankTimes {
 public:
  /// `machines` [rank]: their names.
  explicit RankTimes(std::vector<std::string> machines);
  void add(const data::TrainRow& row);
  /// "rank 2 (node3) was the slowest in 95 of 100 steps; the slowest rank took 1.40 times the median": the rank that
  /// was it most often, the first of several. "" before the first step, and of a rank alone.
  std::string text() const;

 private:
  std::vector<std::string> machines_;
  std::vector<std::int64_t> slowest_;  // [rank] steps
  double slowest_seconds_ = 0, median_seconds_ = 0;
};

}  // namespace routescope::train
