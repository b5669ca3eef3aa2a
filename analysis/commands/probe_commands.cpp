#include "analysis/commands/probe_commands.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <functional>
#include <sstream>
#include <thread>

#include "analysis/commands/tables.h"
#include "analysis/findings/findings.h"
#include "data/base/error.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto poll_interval = std::chrono::seconds(2);
constexpr auto quiet_interval = std::chrono::minutes(1);  // of a followed run, before a word about it

/// What a rank does: rank 0 finds, prints and writes, the others measure with it.
struct Ranks {
  kernels::Communicator& communicator;

  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) const {
    if (communicator.rank() != 0) return;
    fmt::print(format, std::forward<Args>(args)...);
    std::fflush(stdout);
  }
  /// What rank 0 sees, which another rank may see otherwise a moment later.
  bool ask(const std::function<bool()>& question) const {
    double answer = 0;
    kernels::agree(communicator, "what rank 0 sees", [&] { answer = communicator.rank() == 0 && question() ? 1 : 0; });
    communicator.all_reduce({&answer, 1}, kernels::Reduction::max, "what rank 0 sees");
    return answer != 0;
  }
  /// The checkpoints of a run that rank 0 finds.
  std::vector<data::CheckpointEntry> checkpoints(
      const fs::path& run, const std::function<std::vector<data::CheckpointEntry>()>& find) const {
    std::vector<data::CheckpointEntry> found;
    kernels::agree(communicator, "checkpoints to probe", [&] {
      if (communicator.rank() == 0) found = find();
    });
    std::string steps;
    for (const data::CheckpointEntry& entry : found) steps += std::to_string(entry.step) + " ";
    std::istringstream all(communicator.broadcast(steps, "checkpoints to probe"));
    found.clear();
    for (std::int64_t step = 0; all >> step;) found.push_back({step, data::checkpoint_dir(run, step)});
    return found;
  }
  ProbeIdentity identity(const ProbeRequest& request, const fs::path& model, const fs::path& run) const {
    ProbeIdentity out;
    kernels::agree(communicator, "tokens to probe with", [&] { out = identify(request, model, run); });
    return out;
  }
};

std::vector<data::CheckpointEntry> saved_checkpoints(const fs::path& run) {
  check_run(run);
  return data::list_checkpoints(run);
}

std::vector<data::CheckpointEntry> some_checkpoints(const fs::path& run) {
  std::vector<data::CheckpointEntry> checkpoints = saved_checkpoints(run);
  if (checkpoints.empty())
    throw data::Error("{}: found no checkpoint, expected at least one", (run / "checkpoints").string());
  return checkpoints;
}

std::vector<data::CheckpointEntry> chosen_checkpoints(const fs::path& run, const std::string& step) {
  std::vector<data::CheckpointEntry> checkpoints = some_checkpoints(run);
  if (step == "all") return checkpoints;
  if (step == "latest") return {checkpoints.back()};
  std::int64_t number = -1;
  const auto [end, status] = std::from_chars(step.data(), step.data() + step.size(), number);
  if (status != std::errc{} || end != step.data() + step.size()) {
    throw data::UsageError("--step: found '{}', expected a number, latest or all", step);
  }
  for (const data::CheckpointEntry& entry : checkpoints) {
    if (entry.step == number) return {entry};
  }
  std::string saved;
  for (const data::CheckpointEntry& entry : checkpoints) saved += fmt::format(" {}", entry.step);
  throw data::Error("{}: found no step {}, expected one of{}", (run / "checkpoints").string(), number, saved);
}

/// Keeps the record of a run up to date: every saved step, oldest first, because a run that keeps its newest
/// checkpoints only removes the oldest first.
class Tracker {
 public:
  Tracker(RecordedProbe& probe, fs::path run, const Ranks& ranks)
      : probe_(probe), run_(std::move(run)), ranks_(ranks) {}

  /// Probes what is new; returns whether the run has saved its last step.
  bool catch_up() {
    const std::vector<data::CheckpointEntry> checkpoints =
        ranks_.checkpoints(run_, [&] { return saved_checkpoints(run_); });
    note_rollback(checkpoints);
    for (const data::CheckpointEntry& entry : checkpoints) visit(entry);
    if (!checkpoints.empty() && checkpoints.back().step != newest_) {
      newest_ = checkpoints.back().step;
      newest_since_ = Clock::now();
      quiet_said_ = false;
    }
    return ranks_.ask([&] { return !checkpoints.empty() && checkpoints.back().step >= planned_steps(run_); });
  }

  /// Between two looks at the run.
  void wait() {
    if (!quiet_said_ && Clock::now() - newest_since_ > quiet_interval) {
      quiet_said_ = true;
      if (ranks_.communicator.rank() == 0) {
        ranks_.print("up to date with step {} of {}; nothing new for {} s, still waiting\n", newest_,
                     planned_steps(run_), std::chrono::seconds(quiet_interval).count());
      }
    }
    std::this_thread::sleep_for(poll_interval);
  }

 private:
  void visit(const data::CheckpointEntry& entry) {
    bool same = false;
    std::string before;  // rank 0's
    const auto start = Clock::now();
    try {
      same = probe_.is_of(entry.step, entry.dir);
      if (same && probe_.has(entry.step)) return;
      kernels::agree(ranks_.communicator, "the model to probe", [&] {
        if (ranks_.communicator.rank() == 0) before = model_sha256(entry.dir);
      });
      if (!same)
        ranks_.print("step {:>8}  has other weights than were probed: trained again, probed again\n", entry.step);
      probe_.row(entry.step, entry.dir, OtherWeights::probe_again);
    } catch (const std::runtime_error&) {
      // A run that keeps its newest checkpoints only may take one away at any moment, and one that was rolled back
      // writes it anew. Ranks come here together.
      if (ranks_.ask([&] { return is_still(entry.dir, before); })) throw;
      ranks_.print("step {:>8}  was removed before it could be probed\n", entry.step);
      return;
    }
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    ranks_.print("{}  {:.1f} s{}\n", step_line(*probe_.record().find(entry.step), probe_.record().identity),
                 elapsed.count(), behind());
  }

  /// Whether the directory is there with the weights `before` (empty: any). It may go away while it is looked at.
  static bool is_still(const fs::path& dir, const std::string& before) {
    try {
      return fs::exists(dir) && (before.empty() || model_sha256(dir) == before);
    } catch (const std::runtime_error&) {
      return false;
    }
  }

  /// How many saved steps wait, for people.
  std::string behind() const {
    if (ranks_.communicator.rank() != 0) return "";
    std::size_t waiting = 0;
    std::int64_t newest = 0;
    for (const data::CheckpointEntry& entry : data::list_checkpoints(run_)) {
      waiting += !probe_.has(entry.step);
      newest = entry.step;
    }
    return waiting == 0 ? "" : fmt::format(", {} more saved up to step {}", waiting, newest);
  }

  void note_rollback(const std::vector<data::CheckpointEntry>& checkpoints) {
    if (checkpoints.empty() || probe_.record().rows.empty()) return;
    const std::int64_t saved = checkpoints.back().step, probed = probe_.record().rows.back().step;
    if (probed <= saved || rollback_said_ == saved) return;
    rollback_said_ = saved;
    ranks_.print(
        "the run was rolled back to step {}: rows up to step {} are of weights that are gone until it saves "
        "these steps again\n",
        saved, probed);
  }

  RecordedProbe& probe_;
  fs::path run_;
  const Ranks& ranks_;
  std::int64_t newest_ = -1, rollback_said_ = -1;
  Clock::time_point newest_since_ = Clock::now();
  bool quiet_said_ = false;
};

void print_findings(const AnalysisRecord& record, const Ranks& ranks) {
  if (ranks.communicator.rank() != 0 || record.rows.empty()) return;
  ranks.print("{}{}\n", findings_text(find(record), record), cost_line(record.rows.back().cost));
}

}  // namespace

void check_run(const fs::path& run) {
  if (!fs::is_directory(run)) throw data::Error("{}: no such directory, expected a run", run.string());
}

int probe_command(const ProbeArguments& a, kernels::Communicator& communicator) {
  const Ranks ranks{communicator};
  if (a.run.empty() == a.model.empty()) throw data::UsageError("probe: expected either --run or --model");
  if (!a.model.empty() && a.request.tokens.empty()) throw data::UsageError("probe: --model needs --tokens");
  const model::ModelOptions options{.device = model::device_from_string(a.device, "--device")};
  std::vector<data::CheckpointEntry> models;
  if (a.run.empty()) {
    models.push_back({0, a.model});
  } else {
    models = ranks.checkpoints(a.run, [&] { return chosen_checkpoints(a.run, a.step); });
  }
  const fs::path out = !a.out.empty() ? fs::path(a.out) : a.run.empty() ? fs::path() : fs::path(a.run) / "analysis.h5";
  RecordedProbe probe(out, a.request, ranks.identity(a.request, models.front().dir, a.run), options, communicator);
  for (const data::CheckpointEntry& entry : models) {
    if (probe.has(entry.step)) {
      ranks.print("{}: step {} is there already{}\n", out.string(), entry.step,
                  a.request.atlas ? ", with its atlas: its checks stay as they are" : "");
    }
    const ProbeRow& row = probe.row(entry.step, entry.dir);
    ranks.print("{}\n", row_table(row, probe.record().identity));
  }
  print_findings(probe.record(), ranks);
  if (!out.empty()) ranks.print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

int track_command(const ProbeArguments& a, kernels::Communicator& communicator) {
  const Ranks ranks{communicator};
  const model::ModelOptions options{.device = model::device_from_string(a.device, "--device")};
  const fs::path run = a.run;
  check_run(run);
  const auto nothing_yet = [&] { return ranks.ask([&] { return saved_checkpoints(run).empty(); }); };
  if (a.follow && nothing_yet()) {
    ranks.print("waiting for the first checkpoint in {}\n", (run / "checkpoints").string());
    while (nothing_yet()) std::this_thread::sleep_for(poll_interval);
  }
  const fs::path out = a.out.empty() ? run / "analysis.h5" : fs::path(a.out);
  // Of the checkpoints the one that stays the longest.
  const auto newest = ranks.checkpoints(run, [&] { return some_checkpoints(run); }).back();
  RecordedProbe probe(out, a.request, ranks.identity(a.request, newest.dir, a.run), options, communicator);
  Tracker tracker(probe, run, ranks);
  while (!tracker.catch_up() && a.follow) tracker.wait();
  ranks.print("\n{}\n", emergence_table(probe.record()));
  print_findings(probe.record(), ranks);
  ranks.print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

}  // namespace routescope::analysis
