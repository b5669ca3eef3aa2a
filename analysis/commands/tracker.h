// Keeps the record of a run up to date, also while the run goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "analysis/commands/ranks.h"
#include "analysis/record/run_probe.h"

namespace routescope::analysis {

/// Pauses until the next look at a run.
void wait_for_checkpoints();

/// Probes every saved step, the oldest first: a run that keeps only its newest checkpoints removes the oldest first.
class Tracker {
 public:
  Tracker(RecordedProbe& probe, std::filesystem::path run, const Ranks& ranks)
      : probe_(probe), run_(std::move(run)), ranks_(ranks) {}

  /// Probes what is new; returns whether the run has saved its last step.
  bool catch_up();
  /// Pauses until the next look at the run. Says once that nothing came for a while.
  void wait();

 private:
  using Clock = std::chrono::steady_clock;

  void visit(const data::CheckpointEntry& entry);
  std::string behind() const;
  void note_rollback(const std::vector<data::CheckpointEntry>& checkpoints);

  RecordedProbe& probe_;
  std::filesystem::path run_;
  const Ranks& ranks_;
  std::int64_t newest_ = -1, rollback_printed_ = -1;
  Clock::time_point newest_since_ = Clock::now();
  bool quiet_printed_ = false;
};

}  // namespace routescope::analysis
