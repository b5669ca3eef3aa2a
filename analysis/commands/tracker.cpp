#include "analysis/commands/tracker.h"

#include <thread>

#include "analysis/commands/checkpoints.h"
#include "analysis/commands/tables.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

constexpr auto poll_interval = std::chrono::seconds(2);
constexpr auto quiet_interval = std::chrono::minutes(1);  // without a new step, until the user is told

/// Whether the directory is there with the weights of this checksum (empty: any). It may go away at any moment.
bool is_still(const fs::path& dir, const std::string& sha256) {
  try {
    return fs::exists(dir) && (sha256.empty() || model_sha256(dir) == sha256);
  } catch (const std::runtime_error&) {
    return false;
  }
}

}  // namespace

void wait_for_checkpoints() {
  std::this_thread::sleep_for(poll_interval);
}

bool Tracker::catch_up() {
  const std::vector<data::CheckpointEntry> checkpoints = ranks_.checkpoints([&] { return saved_checkpoints(run_); });
  probe_.refresh();
  note_rollback(checkpoints);
  for (const data::CheckpointEntry& entry : checkpoints) visit(entry);
  if (!checkpoints.empty() && checkpoints.back().step != newest_) {
    newest_ = checkpoints.back().step;
    newest_since_ = Clock::now();
    quiet_printed_ = false;
  }
  return ranks_.ask([&] { return !checkpoints.empty() && checkpoints.back().step >= planned_steps(run_); });
}

void Tracker::wait() {
  if (!quiet_printed_ && Clock::now() - newest_since_ > quiet_interval) {
    quiet_printed_ = true;
    if (ranks_.communicator.rank() == 0) {
      ranks_.print("up to date with step {} of {}; nothing new for {} s, still waiting\n", newest_, planned_steps(run_),
                   std::chrono::seconds(quiet_interval).count());
    }
  }
  wait_for_checkpoints();
}

void Tracker::visit(const data::CheckpointEntry& entry) {
  bool same = false;
  std::string sha256;  // on rank 0
  const auto start = Clock::now();
  try {
    same = probe_.is_of(entry.step, entry.dir);
    if (same && probe_.has(entry.step)) return;
    kernels::agree(ranks_.communicator, "the model to probe", [&] {
      if (ranks_.communicator.rank() == 0) sha256 = model_sha256(entry.dir);
    });
    if (!same)
      ranks_.print("step {:>8}  has other weights than were probed: trained again, probed again\n", entry.step);
    probe_.row(entry.step, entry.dir, OtherWeights::probe_again);
  } catch (const std::runtime_error&) {
    // A run that keeps only its newest checkpoints may remove one at any moment, and a run that was rolled back writes
    // it anew. All ranks get here together.
    if (ranks_.ask([&] { return is_still(entry.dir, sha256); })) throw;
    ranks_.print("step {:>8}  was removed before it could be probed\n", entry.step);
    return;
  }
  const std::chrono::duration<double> elapsed = Clock::now() - start;
  ranks_.print("{}  {:.1f} s{}\n", step_line(*probe_.record().find(entry.step), probe_.record().identity),
               elapsed.count(), behind());
}

/// Text on how many saved steps are still to be probed.
std::string Tracker::behind() const {
  if (ranks_.communicator.rank() != 0) return "";
  std::size_t waiting = 0;
  std::int64_t newest = 0;
  for (const data::CheckpointEntry& entry : data::list_checkpoints(run_)) {
    waiting += !probe_.has(entry.step);
    newest = entry.step;
  }
  return waiting == 0 ? "" : fmt::format(", {} more saved up to step {}", waiting, newest);
}

/// Says once if the newest saved step is older than rows of the record.
void Tracker::note_rollback(const std::vector<data::CheckpointEntry>& checkpoints) {
  if (checkpoints.empty() || probe_.record().rows.empty()) return;
  const std::int64_t saved = checkpoints.back().step, probed = probe_.record().rows.back().step;
  if (probed <= saved || rollback_printed_ == saved) return;
  rollback_printed_ = saved;
  ranks_.print(
      "the run was rolled back to step {}: rows up to step {} are of weights that are gone until it saves these steps "
      "again\n",
      saved, probed);
}

}  // namespace routescope::analysis
