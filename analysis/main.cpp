// routescope-analyze: probe models, follow a run's emergence, draw its report.
#include <charconv>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <thread>

#include "analysis/inspect.h"
#include "analysis/report.h"
#include "analysis/run_probe.h"
#include "analysis/tables.h"
#include "data/command_line.h"
#include "kernels/agree.h"
#include "kernels/comm/launch.h"
#include "kernels/device.h"

namespace {

using namespace routescope;
namespace fs = std::filesystem;

struct Arguments {
  std::string run, model, step = "latest", ablation = "mask", out, device = "cpu";
  ProbeRequest request;
  bool follow = false;
  double timeout = 86400;  // a rank measures all of its sequences between two words to the others
};

constexpr auto poll_interval = std::chrono::seconds(2);

/// What a rank does: rank 0 finds, prints and writes, the others measure with it.
struct Ranks {
  Communicator& communicator;

  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) const {
    if (communicator.rank() != 0) return;
    fmt::print(format, std::forward<Args>(args)...);
    std::fflush(stdout);
  }
  /// What rank 0 sees, which another rank may see otherwise a moment later.
  bool ask(const std::function<bool()>& question) const {
    double answer = communicator.rank() == 0 && question() ? 1 : 0;
    communicator.all_reduce({&answer, 1}, Reduction::max, "what rank 0 sees");
    return answer != 0;
  }
  /// The checkpoints of a run that rank 0 finds.
  std::vector<CheckpointEntry> checkpoints(const fs::path& run,
                                           const std::function<std::vector<CheckpointEntry>()>& find) const {
    std::vector<CheckpointEntry> found;
    agree(communicator, "checkpoints to probe", [&] {
      if (communicator.rank() == 0) found = find();
    });
    std::string steps;
    for (const CheckpointEntry& entry : found) steps += std::to_string(entry.step) + " ";
    std::istringstream all(communicator.broadcast(steps, "checkpoints to probe"));
    found.clear();
    for (std::int64_t step = 0; all >> step;) found.push_back({step, checkpoint_dir(run, step)});
    return found;
  }
  ProbeIdentity identity(const ProbeRequest& request, const fs::path& model, const fs::path& run) const {
    ProbeIdentity out;
    agree(communicator, "tokens to probe with", [&] { out = identify(request, model, run); });
    return out;
  }
};

void check_ablation(const std::string& list) {
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    if (const std::string name = list.substr(begin, end - begin); name != "mask") {
      throw UsageError("--ablation: '{}' is not available in this version; available: mask", name);
    }
    begin = end + 1;
  }
}

ModelOptions model_options(const std::string& device) {
  return {.device = device_from_string(device, "--device")};
}

void check_run(const fs::path& run) {
  if (!fs::is_directory(run)) throw Error("{}: no such directory, expected a run", run.string());
}

std::vector<CheckpointEntry> checkpoints_of(const fs::path& run) {
  check_run(run);
  std::vector<CheckpointEntry> checkpoints = list_checkpoints(run);
  if (checkpoints.empty())
    throw Error("{}: found no checkpoint, expected at least one", (run / "checkpoints").string());
  return checkpoints;
}

std::vector<CheckpointEntry> chosen_checkpoints(const fs::path& run, const std::string& step) {
  std::vector<CheckpointEntry> checkpoints = checkpoints_of(run);
  if (step == "all") return checkpoints;
  if (step == "latest") return {checkpoints.back()};
  std::int64_t number = -1;
  const auto [end, status] = std::from_chars(step.data(), step.data() + step.size(), number);
  if (status != std::errc{} || end != step.data() + step.size()) {
    throw UsageError("--step: found '{}', expected a number, latest or all", step);
  }
  for (const CheckpointEntry& entry : checkpoints) {
    if (entry.step == number) return {entry};
  }
  std::string saved;
  for (const CheckpointEntry& entry : checkpoints) saved += fmt::format(" {}", entry.step);
  throw Error("{}: found no step {}, expected one of{}", (run / "checkpoints").string(), number, saved);
}

int run_probe(const Arguments& a, const Ranks& ranks) {
  check_ablation(a.ablation);
  if (a.run.empty() == a.model.empty()) throw UsageError("probe: expected either --run or --model");
  if (!a.model.empty() && a.request.tokens.empty()) throw UsageError("probe: --model needs --tokens");
  const ModelOptions options = model_options(a.device);
  std::vector<CheckpointEntry> models;
  if (a.run.empty()) {
    models.push_back({0, a.model});
  } else {
    models = ranks.checkpoints(a.run, [&] { return chosen_checkpoints(a.run, a.step); });
  }
  const fs::path out = !a.out.empty() ? fs::path(a.out) : a.run.empty() ? fs::path() : fs::path(a.run) / "analysis.h5";
  RecordedProbe probe(out, ranks.identity(a.request, models.front().dir, a.run), options, ranks.communicator);
  for (const CheckpointEntry& entry : models) {
    if (probe.has(entry.step)) ranks.print("{}: step {} is there already\n", out.string(), entry.step);
    const ProbeRow& row = probe.row(entry.step, entry.dir);
    ranks.print("{}\n", slice_table(row, probe.record().identity));
  }
  if (!out.empty()) ranks.print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

/// Probes what is new; returns whether the run has saved its last step.
bool catch_up(RecordedProbe& probe, const fs::path& run, const Ranks& ranks) {
  const std::vector<CheckpointEntry> checkpoints = ranks.checkpoints(run, [&] { return list_checkpoints(run); });
  for (const CheckpointEntry& entry : checkpoints) {
    if (probe.has(entry.step)) {
      probe.row(entry.step, entry.dir);
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    try {
      probe.row(entry.step, entry.dir);
    } catch (const std::runtime_error&) {
      // A run that keeps its newest checkpoints only may take one away at any moment. Ranks come here together.
      if (ranks.ask([&] { return fs::exists(entry.dir); })) throw;
      ranks.print("step {:>8}  was removed before it could be probed\n", entry.step);
      continue;
    }
    const ProbeRow& row = *probe.record().find(entry.step);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::size_t strongest = num_slices;
    for (std::size_t s = 0; s < num_slices; ++s) {
      if (std::isnan(row.effects(Ablation::mask).delta_nll[s])) continue;
      if (strongest == num_slices ||
          row.effects(Ablation::mask).delta_nll[s] > row.effects(Ablation::mask).delta_nll[strongest])
        strongest = s;
    }
    ranks.print("step {:>8}  nll {:.4f}  {}  {:.1f} s\n", row.step, row.intact_nll,
                strongest == num_slices ? "no slice can be masked"
                                        : fmt::format("largest {} {:+.4f}", slice_name(strongest),
                                                      row.effects(Ablation::mask).delta_nll[strongest]),
                elapsed.count());
  }
  return ranks.ask([&] { return !checkpoints.empty() && checkpoints.back().step >= planned_steps(run); });
}

int run_track(const Arguments& a, const Ranks& ranks) {
  const ModelOptions options = model_options(a.device);
  const fs::path run = a.run;
  check_run(run);
  const auto nothing_yet = [&] { return ranks.ask([&] { return list_checkpoints(run).empty(); }); };
  if (a.follow && nothing_yet()) {
    ranks.print("waiting for the first checkpoint in {}\n", (run / "checkpoints").string());
    while (nothing_yet()) std::this_thread::sleep_for(poll_interval);
  }
  const fs::path out = a.out.empty() ? run / "analysis.h5" : fs::path(a.out);
  const auto first = ranks.checkpoints(run, [&] { return checkpoints_of(run); }).front();
  RecordedProbe probe(out, ranks.identity(a.request, first.dir, run), options, ranks.communicator);
  while (!catch_up(probe, run, ranks) && a.follow) std::this_thread::sleep_for(poll_interval);
  ranks.print("\n{}\n{}: {} rows\n", emergence_table(probe.record()), out.string(), probe.record().rows.size());
  return 0;
}

int run_report(const Arguments& a) {
  check_run(a.run);
  const fs::path out = a.out.empty() ? fs::path(a.run) / "report.html" : fs::path(a.out);
  write_report(a.run, out);
  fmt::print("{}: {:.1f} kB\n", out.string(), static_cast<double>(fs::file_size(out)) / 1000);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Probe what the routing of a model does, follow it over a run, and draw the report.",
               "routescope-analyze");
  app.set_version_flag("--version", routescope_version());
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Arguments a;

  const auto add_run = [&](CLI::App* command) { return command->add_option("--run", a.run, "Run directory"); };
  const auto add_measurement = [&](CLI::App* command) {
    command->add_option("--tokens", a.request.tokens,
                        "HDF5 file with `tokens` [B, T], or a token shard; without it a run's own probe tokens");
    command->add_option("--sequences", a.request.sequences, "Only the first N sequences (of a shard: 32)")
        ->check(CLI::PositiveNumber);
    command->add_option("--sequence-length", a.request.positions, "Of a token shard: tokens a sequence")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    command->add_option("--seed", a.request.seed, "Of the intervals and p values")
        ->check(CLI::Range(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()))
        ->capture_default_str();
    command->add_option("--device", a.device, "Where to compute")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
    command
        ->add_option("--timeout", a.timeout,
                     "Of several ranks: seconds that one may take over its sequences before it counts as lost")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
  };

  CLI::App* probe = app.add_subcommand("probe", "Mass of every slice and the effect of ablating it, with intervals");
  add_run(probe);
  probe->add_option("--model", a.model, "Model directory, in place of a run");
  probe->add_option("--step", a.step, "Of a run: a saved step, latest or all")->capture_default_str();
  probe->add_option("--ablation", a.ablation, "What is done to a slice")->capture_default_str();
  add_measurement(probe);
  probe->add_option("--out", a.out, "analysis.h5 to write (of a run: DIR/analysis.h5)");

  CLI::App* track = app.add_subcommand("track", "Probe every saved step of a run that was not probed yet");
  add_run(track)->required();
  track->add_flag("--follow", a.follow, "Wait for further steps until the run has saved its last");
  add_measurement(track);
  track->add_option("--out", a.out, "analysis.h5 to write (DIR/analysis.h5)");

  CLI::App* report = app.add_subcommand("report", "Draw a run as one self-contained HTML page");
  add_run(report)->required();
  report->add_option("--out", a.out, "Page to write (DIR/report.html)");

  CLI::App* inspect = app.add_subcommand("inspect", "What there is of a run and where it stands");
  add_run(inspect)->required();

  const auto tool = [&]() -> int {
    if (const auto done = parse_command_line(app, argc, argv)) return *done;
    if (*probe || *track) {
      // Only values on the host are exchanged, whatever computes them.
      CommunicatorOptions options;
      options.timeout_seconds = a.timeout;
      const std::unique_ptr<Communicator> communicator = start_communicator(Device::cpu, options);
      if (a.device != "cpu" && device_count() > 0) select_device(communicator->place().local_rank % device_count());
      return *probe ? run_probe(a, {*communicator}) : run_track(a, {*communicator});
    }
    if (launched_place().rank != 0) return 0;  // the rest is work for one
    if (*report) return run_report(a);
    check_run(a.run);
    fmt::print("{}", inspect_run(a.run));
    return 0;
  };
  return run_tool("routescope-analyze", [&]() -> int {
    // One line for the job, whichever rank it is that fails.
    try {
      return tool();
    } catch (const UsageError& error) {
      if (launched_place().size > 1) abandon(2, fmt::format("routescope-analyze: error: {}", error.what()));
      throw;
    } catch (const std::exception& error) {
      if (launched_place().size > 1) abandon(1, fmt::format("routescope-analyze: error: {}", error.what()));
      throw;
    }
  });
}
