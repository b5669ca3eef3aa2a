#include "train/checkpoint/checkpoint_retention.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "data/base/files.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_job.h"

namespace routescope::train {

namespace {

/// Whether an intact checkpoint was written outside a series of skipped steps. If its state cannot be read, no run can
/// go back to it, and it is not.
bool is_clean(const data::CheckpointEntry& checkpoint) {
  try {
    return read_train_state(checkpoint).skipped == 0;
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
      if (file.name.starts_with("train_state")) continue;
      std::error_code no_links;  // some file systems have none
      fs::create_hard_link(checkpoint.dir / file.name, directory / file.name, no_links);
      if (!no_links) continue;
      fs::copy_file(checkpoint.dir / file.name, directory / file.name);
      data::sync_path(directory / file.name);
    }
  });
}

}  // namespace

CheckpointRetention::CheckpointRetention(std::filesystem::path run_dir, std::int64_t keep, std::int64_t intact)
    : run_dir_(std::move(run_dir)), keep_(keep) {
  if (keep_ > 0 && intact >= 0) counts_[intact] = is_clean({intact, data::checkpoint_dir(run_dir_, intact)});
}

CheckpointRetention::~CheckpointRetention() {
  given_up_ = true;
  if (thread_.joinable()) thread_.join();
}

void CheckpointRetention::written(const TrainState& state) {
  counts_[state.step] = state.skipped == 0;
  if (keep_ <= 0 || state.skipped > 0) return;
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
    std::int64_t counted = 0;
    std::vector<data::CheckpointEntry> unknown;
    const std::vector<data::CheckpointEntry> all = data::list_checkpoints(run_dir_);
    for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
      if (entry->step > newest_) continue;
      const auto known = counts_.find(entry->step);
      if (counted == keep_) {
        if (entry->step == 0) keep_initial(run_dir_, *entry);
        remove_checkpoint(entry->dir);
      } else if (known == counts_.end())
        unknown.push_back(*entry);
      else if (known->second)
        ++counted;
    }
    const std::int64_t wanted = keep_ - counted;
    // If there are no more than are wanted, none would be removed whatever is read.
    if (wanted <= 0 || std::ssize(unknown) <= wanted || thread_.joinable()) return;
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
