#include "train/run/rank_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace routescope::train {

RankTimes::RankTimes(std::vector<std::string> machines)
    : machines_(std::move(machines)), slowest_(machines_.size(), 0) {}

void RankTimes::add(const data::TrainRow& row) {
  if (row.slowest_rank < 0 || row.slowest_rank >= static_cast<std::int64_t>(slowest_.size())) return;
  ++slowest_[static_cast<std::size_t>(row.slowest_rank)];
  slowest_seconds_ += row.rank_seconds_slowest;
  median_seconds_ += row.rank_seconds_median;
}

std::string RankTimes::text() const {
  const std::int64_t steps = std::accumulate(slowest_.begin(), slowest_.end(), std::int64_t{0});
  if (slowest_.size() < 2 || steps == 0 || !(median_seconds_ > 0)) return "";
  const auto most = std::ranges::max_element(slowest_);
  const auto rank = static_cast<std::size_t>(most - slowest_.begin());
  return fmt::format("rank {} ({}) was the slowest in {} of {} steps; the slowest rank took {:.2f} times the median",
                     rank, machines_[rank], *most, steps, slowest_seconds_ / median_seconds_);
}

}  // namespace routescope::train
