#include "train/checkpoint/checkpoint_retention.h"

#include <spdlog/spdlog.h>

#include <algorithm>
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
    : run_dir_(std::move(run_dir)), kept_(kept) {
  if (kept_.any() && intact >= 0) counts_[intact] = is_clean({intact, data::checkpoint_dir(run_dir_, intact)});
}

CheckpointRetention::~CheckpointRetention() {
  given_up_ = true;
  if (thread_.joinable()) thread_.join();
}

void CheckpointRetention::written(const TrainState& state) {
  counts_[state.step] = state.skipped == 0;
  if (!kept_.any() || state.skipped > 0) return;
  newest_ = state.step;
  prune();
}

void CheckpointRetention::update() {
  if (!done_) return;
  thread_.join();
  done_ = false;
  counts_.merge(read_);
  prune();
}

void CheckpointRetention::prune() {
  try {
    std::int64_t counted = 0, resumable = 0, unknown_states = 0;
    std::vector<data::CheckpointEntry> unknown;
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
      if (resumable == kept_.states)
        remove_state(entry->dir);
      else if (counts)
        ++resumable;
      else if (known == counts_.end())
        ++unknown_states;
    }
    // If there are no more than are wanted, nothing would be removed whatever is read.
    std::int64_t wanted = 0;
    if (std::ssize(unknown) > kept_.checkpoints - counted) wanted = kept_.checkpoints - counted;
    if (unknown_states > kept_.states - resumable) wanted = std::max(wanted, kept_.states - resumable);
    if (wanted <= 0 || thread_.joinable()) return;
    read_.clear();
    thread_ = thread_without_signals([this, unknown, wanted] { read(unknown, wanted); });
  } catch (const std::exception& error) {
    spdlog::warn("cannot remove an old checkpoint: {}", error.what());
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
