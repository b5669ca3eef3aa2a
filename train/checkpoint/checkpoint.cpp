// Finding a checkpoint that can be trusted, and removing what is none.
#include "train/checkpoint/checkpoint.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/sha256.h"
#include "kernels/comm/agree.h"
#include "train/checkpoint/checkpoint_directory.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

// Names that no reader takes for a checkpoint: the new one while it is written, an old one while it is removed.
constexpr const char* kWriting = ".writing-";
constexpr const char* kRemoving = ".removing-";

fs::path beside(const fs::path& dir, const char* prefix) {
  return dir.parent_path() / (prefix + dir.filename().string());
}

/// What a run directory holds under names of checkpoints: those with a manifest, newest first, and the others.
struct Candidates {
  std::vector<std::int64_t> steps;
  std::vector<std::string> without_manifest;
};

/// What stands under the name of a checkpoint, with a manifest or without, in no order.
std::vector<data::CheckpointEntry> named_as_checkpoints(const fs::path& run_dir) {
  constexpr std::string_view kPrefix = "step-";
  const fs::path parent = data::checkpoint_dir(run_dir, 0).parent_path();
  std::vector<data::CheckpointEntry> found;
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t step = 0;
    const auto [stop, bad] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
    if (bad == std::errc() && entry->path() == data::checkpoint_dir(run_dir, step))
      found.push_back({step, entry->path()});
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw data::Error("{}: cannot list: {}", parent.string(), error.message());
  return found;
}

Candidates look_for_checkpoints(const fs::path& run_dir) {
  Candidates found;
  const std::vector<data::CheckpointEntry> listed = data::list_checkpoints(run_dir);
  for (auto entry = listed.rbegin(); entry != listed.rend(); ++entry) found.steps.push_back(entry->step);
  for (const data::CheckpointEntry& named : named_as_checkpoints(run_dir)) {
    // We rename only complete ones into place: this one lost its manifest.
    if (std::ranges::find(found.steps, named.step) == found.steps.end())
      found.without_manifest.push_back(named.dir.string());
  }
  return found;
}

std::string to_text(const Candidates& candidates) {
  return fmt::format("{} {}", candidates.without_manifest.size(), fmt::join(candidates.steps, " "));
}

/// What is wrong with a checkpoint's files, those with index % share.size == share.rank in the order of its manifest,
/// or nothing.
std::string damage(const data::CheckpointEntry& checkpoint, const kernels::Place& share) {
  try {
    const std::vector<data::ManifestEntry> files = data::list_manifest(checkpoint.dir);
    const auto size = static_cast<std::size_t>(share.size);
    for (std::size_t i = static_cast<std::size_t>(share.rank); i < files.size(); i += size)
      data::verify_entry(checkpoint.dir, files[i]);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

/// Of every rank, the first damage that one met, or nothing; on every rank.
std::string damage_met(const data::CheckpointEntry& checkpoint, kernels::Communicator& communicator) {
  const std::string what = fmt::format("checksums of step {}", checkpoint.step);
  const std::string mine = damage(checkpoint, communicator.place());
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

fs::path writing_dir(const fs::path& checkpoint) {
  return beside(checkpoint, kWriting);
}

void rename_directory(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error)
    throw data::Error("{}: cannot be renamed to {}: {}", from.string(), to.filename().string(), error.message());
}

void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden = beside(checkpoint, kRemoving);
  std::error_code error;
  fs::remove_all(hidden, error);
  rename_directory(checkpoint, hidden);
  fs::remove_all(hidden, error);  // what cannot be removed now is debris, removed at the next start
}

void remove_checkpoints_after(const fs::path& run_dir, std::int64_t step) {
  std::vector<data::CheckpointEntry> later;
  for (const data::CheckpointEntry& entry : named_as_checkpoints(run_dir))
    if (entry.step > step) later.push_back(entry);
  if (later.empty()) return;
  for (const data::CheckpointEntry& entry : later) remove_checkpoint(entry.dir);
  data::sync_path(data::checkpoint_dir(run_dir, step).parent_path());
}

bool is_intact(const data::CheckpointEntry& checkpoint, const std::atomic<bool>& given_up) {
  try {
    std::vector<char> piece(std::size_t{1} << 20);
    for (const data::ManifestEntry& expected : data::list_manifest(checkpoint.dir)) {
      std::ifstream in(checkpoint.dir / expected.name, std::ios::binary);
      if (!in) return false;
      data::Sha256 sum;
      do {
        if (given_up) return false;
        in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
        sum.add(piece.data(), static_cast<std::size_t>(in.gcount()));
      } while (in);
      if (in.bad() || sum.hex() != expected.sha256) return false;
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

std::optional<data::CheckpointEntry> newest_intact_checkpoint(const fs::path& run_dir,
                                                              kernels::Communicator& communicator,
                                                              std::int64_t at_most) {
  const bool first = communicator.rank() == 0;
  Candidates candidates;
  kernels::agree(communicator, "list of checkpoints", [&] {
    if (first) candidates = look_for_checkpoints(run_dir);
  });
  std::istringstream found(communicator.broadcast(to_text(candidates), "list of checkpoints"));
  std::size_t damaged = 0;
  found >> damaged;
  for (const std::string& dir : candidates.without_manifest)
    spdlog::warn("{}: passed over: it has no MANIFEST.json", dir);
  std::string newest_damage;
  for (std::int64_t step = 0; found >> step;) {
    if (step > at_most) continue;
    const data::CheckpointEntry checkpoint{step, data::checkpoint_dir(run_dir, step)};
    const std::string met = damage_met(checkpoint, communicator);
    if (met.empty()) return checkpoint;
    if (first) spdlog::warn("passed over a broken checkpoint: {}", met);
    if (newest_damage.empty()) newest_damage = met;
    ++damaged;
  }
  if (damaged == 0) return std::nullopt;
  kernels::agree(communicator, "no intact checkpoint", [&] {
    throw data::Error("{}: found no intact checkpoint, expected one of the {} that are there to resume from{}{}",
                      data::checkpoint_dir(run_dir, 0).parent_path().string(), damaged,
                      newest_damage.empty() ? "" : "; the newest: ", newest_damage);
  });
  return std::nullopt;
}

void remove_debris(const fs::path& run_dir) {
  const fs::path parent = data::checkpoint_dir(run_dir, 0).parent_path();
  if (!fs::is_directory(parent)) return;
  std::vector<fs::path> debris;
  for (const auto& entry : fs::directory_iterator(parent)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kWriting) || name.starts_with(kRemoving)) debris.push_back(entry.path());
  }
  for (const fs::path& path : debris) fs::remove_all(path);
}

}  // namespace routescope::train
