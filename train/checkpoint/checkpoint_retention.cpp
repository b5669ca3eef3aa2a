#include "train/checkpoint/checkpoint_retention.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "data/base/files.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_job.h"

namespace routescope::train {

namespace {

/// Whether an intact checkpoint was written outside a series of skipped steps. If its state cannot be read, no run can
/// go back to it, and it is not. The state of others is not removed.
bool is_clean(const data::CheckpointEntry& checkpoint) {
  try {
    return !has_state(checkpoint) || read_train_state(checkpoint).skipped == 0;
  } catch (const std::exception&) {
    return false;
  }
}

/// Whether it has a state. A checkpoint whose manifest cannot be read stays as it is.
bool can_lose_state(const data::CheckpointEntry& checkpoint) {
  try {
    return has_state(checkpoint);
  } catch (const std::exception&) {
    return false;
  }
}

/// Keeps the weights of a checkpoint of step 0: probes measure against it what a model has learned.
void keep_initial(const std::filesystem::path& run_dir, const data::CheckpointEntry& checkpoint) {
  namespace fs = std::filesystem;
  const fs::path initial = data::initial_dir(run_dir);
  if (fs::exists(initial)) return;
  data::write_directory_atomically(initial, [&](const fs::path& directory) {
    for (const data::ManifestEntry& file : data::list_manifest(checkpoint.dir)) {
      if (data::is_train_state(file.name)) continue;
      link_or_copy(checkpoint.dir / file.name, directory / file.name);
    }
  });
}

}  // namespace

CheckpointRetention::CheckpointRetention(std::filesystem::path run_dir, const Kept& kept, std::int64_t intact)
    : run_dir_(std::move(run_dir)), kept_(kept), first_(intact) {
  if (kept_.any() && intact >= 0) counts_[intact] = is_clean({intact, data::checkpoint_dir(run_dir_, intact)});
}

CheckpointRetention::~CheckpointRetention() {
  given_up_ = true;
  if (thread_.joinable()) thread_.join();
  // After an error the directory may be that of another process by now.
  if (kept_.weights == kernels::DType::f32 || std::uncaught_exceptions() > 0) return;
  rounding_ = false;
  prune();
}

void CheckpointRetention::written(const TrainState& state) {
  counts_[state.step] = state.skipped == 0;
  if (!kept_.any() || state.skipped > 0) return;
  newest_ = state.step;
  if (first_ < 0) first_ = state.step;
  prune();
}

void CheckpointRetention::update() {
  if (!done_) return;
  thread_.join();
  done_ = rounding_ = false;
  counts_.merge(read_);
  prune();
}

void CheckpointRetention::prune() {
  if (rounding_) return;  // update() comes back to it
  try {
    std::int64_t counted = 0, resumable = 0, unknown_states = 0;
    std::vector<data::CheckpointEntry> unknown, to_round;
    const std::vector<data::CheckpointEntry> all = data::list_checkpoints(run_dir_);
    for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
      if (entry->step > newest_) continue;
      if (kept_.checkpoints > 0 && counted == kept_.checkpoints) {
        if (entry->step == 0) keep_initial(run_dir_, *entry);
        remove_checkpoint(entry->dir);
        continue;
      }
      const auto known = counts_.find(entry->step);
      const bool counts = known != counts_.end() && known->second;
      if (known == counts_.end()) unknown.push_back(*entry);
      if (counts) ++counted;
      if (kept_.states == 0 || !can_lose_state(*entry)) continue;
      if (resumable == kept_.states && kept_.weights == kernels::DType::f32)
        remove_state(entry->dir);
      else if (resumable == kept_.states && not_rounded_.contains(entry->step))
        continue;
      else if (resumable == kept_.states)
        to_round.push_back(*entry);
      else if (counts)
        ++resumable;
      else if (known == counts_.end())
        ++unknown_states;
    }
    if (given_up_) {
      for (const data::CheckpointEntry& checkpoint : to_round)
        if (checkpoint.step >= first_) round(checkpoint);
      return;
    }
    if (!to_round.empty() && !thread_.joinable()) {
      start([this, to_round] {
        for (const data::CheckpointEntry& checkpoint : to_round) {
          if (given_up_) return;
          round(checkpoint);
        }
        done_ = true;
      });
      rounding_ = true;
      return;
    }
    // If there are no more than are wanted, nothing would be removed whatever is read.
    std::int64_t wanted = 0;
    if (std::ssize(unknown) > kept_.checkpoints - counted) wanted = kept_.checkpoints - counted;
    if (unknown_states > kept_.states - resumable) wanted = std::max(wanted, kept_.states - resumable);
    if (wanted <= 0 || thread_.joinable()) return;
    read_.clear();
    start([this, unknown, wanted] { read(unknown, wanted); });
  } catch (const std::exception& error) {
    spdlog::warn("cannot remove an old checkpoint: {}", error.what());
  }
}

void CheckpointRetention::start(std::function<void()> work) {
  thread_ = thread_without_signals(std::move(work));
}

void CheckpointRetention::round(const data::CheckpointEntry& checkpoint) {
  try {
    remove_state(checkpoint.dir, kept_.weights);
  } catch (const std::exception& error) {
    spdlog::warn("{}: keeps its state and its f32 weights: {}", checkpoint.dir.string(), error.what());
    not_rounded_.insert(checkpoint.step);
  }
}

void CheckpointRetention::read(const std::vector<data::CheckpointEntry>& checkpoints, std::int64_t wanted) {
  for (auto entry = checkpoints.begin(); entry != checkpoints.end() && wanted > 0; ++entry) {
    const bool counts = is_intact(*entry, given_up_) && is_clean(*entry);
    if (given_up_) return;
    read_[entry->step] = counts;
    if (counts) --wanted;
  }
  done_ = true;
}

}  // namespace routescope::train
