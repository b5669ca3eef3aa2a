#include "train/checkpoint/checkpoint_search.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "data/base/error.h"
#include "kernels/comm/agree.h"
#include "train/checkpoint/checkpoint_directory.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

/// False for a manifest that cannot be read: that is damage, which is found later.
bool lacks_state(const data::CheckpointEntry& checkpoint) {
  try {
    return !has_state(checkpoint);
  } catch (const std::exception&) {
    return false;
  }
}

/// The directories of a run that are named as checkpoints.
struct Candidates {
  std::vector<std::int64_t> steps;          // of those with a manifest, newest first
  std::vector<std::int64_t> without_state;  // no run can go on from them
  std::vector<std::string> without_manifest;
};

Candidates list_candidates(const fs::path& run_dir) {
  Candidates found;
  const std::vector<data::CheckpointEntry> listed = data::list_checkpoints(run_dir);
  for (auto entry = listed.rbegin(); entry != listed.rend(); ++entry)
    (lacks_state(*entry) ? found.without_state : found.steps).push_back(entry->step);
  for (const data::CheckpointEntry& named : named_as_checkpoints(run_dir)) {
    // Only complete checkpoints are renamed into place: a directory without a manifest has lost it.
    if (std::ranges::none_of(listed, [&](const data::CheckpointEntry& entry) { return entry.step == named.step; }))
      found.without_manifest.push_back(named.dir.string());
  }
  return found;
}

/// For broadcast(): the numbers of directories without a manifest and without a state, then the steps of the others.
std::string to_text(const Candidates& candidates) {
  return fmt::format("{} {} {}", candidates.without_manifest.size(), candidates.without_state.size(),
                     fmt::join(candidates.steps, " "));
}

/// The first error in this rank's share of a checkpoint's files, or "". The files are shared out in turn, in the order
/// of the manifest.
std::string damage_in_share(const data::CheckpointEntry& checkpoint, const kernels::Place& share) {
  try {
    const std::vector<data::ManifestEntry> files = data::list_manifest(checkpoint.dir);
    const auto size = static_cast<std::size_t>(share.size);
    for (std::size_t i = static_cast<std::size_t>(share.rank); i < files.size(); i += size) {
      data::verify_entry(checkpoint.dir, files[i]);
      // A checkpoint of this program is finite. Nothing could go on from one that is not.
      if (holds_tensors(files[i].name)) check_finite(checkpoint.dir / files[i].name);
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

/// The error of the first rank that found one, or ""; the same on every rank.
std::string damage_on_any_rank(const data::CheckpointEntry& checkpoint, kernels::Communicator& communicator) {
  const std::string what = fmt::format("checksums of step {}", checkpoint.step);
  const std::string mine = damage_in_share(checkpoint, communicator.place());
  double damaged = mine.empty() ? 0 : 1;
  communicator.all_reduce({&damaged, 1}, kernels::Reduction::max, what);
  if (damaged == 0) return "";
  std::string first;
  for (const std::string& text : communicator.gather(mine, what)) {
    if (first.empty()) first = text;
  }
  return communicator.broadcast(first, what);
}

}  // namespace

std::optional<data::CheckpointEntry> newest_intact_checkpoint(const fs::path& run_dir,
                                                              kernels::Communicator& communicator,
                                                              std::int64_t at_most) {
  const bool first = communicator.rank() == 0;
  Candidates candidates;
  kernels::agree(communicator, "list of checkpoints", [&] {
    if (first) candidates = list_candidates(run_dir);
  });
  std::istringstream found(communicator.broadcast(to_text(candidates), "list of checkpoints"));
  std::size_t damaged = 0, without_state = 0;
  found >> damaged >> without_state;
  for (const std::string& dir : candidates.without_manifest) spdlog::warn("{}: ignored: it has no MANIFEST.json", dir);
  std::string newest_damage;
  for (std::int64_t step = 0; found >> step;) {
    if (step > at_most) continue;
    const data::CheckpointEntry checkpoint{step, data::checkpoint_dir(run_dir, step)};
    const std::string damage = damage_on_any_rank(checkpoint, communicator);
    if (damage.empty()) {
      for (const std::int64_t later : candidates.without_state)
        if (later > step && later <= at_most)
          spdlog::warn("{}: not resumed from: it has no optimizer state (checkpoint.keep_state)",
                       data::checkpoint_dir(run_dir, later).string());
      return checkpoint;
    }
    if (first) spdlog::warn("ignored a damaged checkpoint: {}", damage);
    if (newest_damage.empty()) newest_damage = damage;
    ++damaged;
  }
  if (damaged + without_state == 0) return std::nullopt;
  kernels::agree(communicator, "no intact checkpoint", [&] {
    throw data::Error("{}: found no intact checkpoint{}, expected one of the {} to resume from{}{}",
                      data::checkpoint_dir(run_dir, 0).parent_path().string(),
                      without_state > 0 ? " with optimizer state" : "", damaged + without_state,
                      newest_damage.empty() ? "" : "; the newest: ", newest_damage);
  });
  return std::nullopt;
}

}  // namespace routescope::train
