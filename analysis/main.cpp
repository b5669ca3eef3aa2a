// routescope-analyze: probe models, follow a run's emergence, draw its report.
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "analysis/inspect.h"
#include "analysis/report.h"
#include "analysis/run_probe.h"
#include "analysis/tables.h"
#include "data/command_line.h"

namespace {

using namespace routescope;
namespace fs = std::filesystem;

struct Arguments {
  std::string run, model, step = "latest", ablation = "mask", out, device = "cpu";
  ProbeRequest request;
  bool follow = false;
};

constexpr auto poll_interval = std::chrono::seconds(2);

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

int run_probe(const Arguments& a) {
  check_ablation(a.ablation);
  if (a.run.empty() == a.model.empty()) throw UsageError("probe: expected either --run or --model");
  if (!a.model.empty() && a.request.tokens.empty()) throw UsageError("probe: --model needs --tokens");
  const ModelOptions options = model_options(a.device);
  std::vector<CheckpointEntry> models;
  if (a.run.empty()) {
    models.push_back({0, a.model});
  } else {
    models = chosen_checkpoints(a.run, a.step);
  }
  const fs::path out = !a.out.empty() ? fs::path(a.out) : a.run.empty() ? fs::path() : fs::path(a.run) / "analysis.h5";
  RecordedProbe probe(out, identify(a.request, models.front().dir, a.run), options);
  for (const CheckpointEntry& entry : models) {
    if (probe.has(entry.step)) fmt::print("{}: step {} is there already\n", out.string(), entry.step);
    fmt::print("{}\n", slice_table(probe.row(entry.step, entry.dir), probe.record().identity));
    std::fflush(stdout);
  }
  if (!out.empty()) fmt::print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

/// Probes what is new; returns whether the run has saved its last step.
bool catch_up(RecordedProbe& probe, const fs::path& run) {
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run);
  for (const CheckpointEntry& entry : checkpoints) {
    if (probe.has(entry.step)) {
      probe.row(entry.step, entry.dir);
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    try {
      probe.row(entry.step, entry.dir);
    } catch (const Error&) {
      // A run that keeps its newest checkpoints only may take one away at any moment.
      if (fs::exists(entry.dir)) throw;
      fmt::print("step {:>8}  was removed before it could be probed\n", entry.step);
      continue;
    }
    const ProbeRow& row = *probe.record().find(entry.step);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::size_t strongest = num_slices;
    for (std::size_t s = 0; s < num_slices; ++s) {
      if (std::isnan(row.mask.delta_nll[s])) continue;
      if (strongest == num_slices || row.mask.delta_nll[s] > row.mask.delta_nll[strongest]) strongest = s;
    }
    fmt::print("step {:>8}  nll {:.4f}  {}  {:.1f} s\n", row.step, row.intact_nll,
               strongest == num_slices
                   ? "no slice can be masked"
                   : fmt::format("largest {} {:+.4f}", slice_name(strongest), row.mask.delta_nll[strongest]),
               elapsed.count());
    std::fflush(stdout);
  }
  return !checkpoints.empty() && checkpoints.back().step >= planned_steps(run);
}

int run_track(const Arguments& a) {
  const ModelOptions options = model_options(a.device);
  const fs::path run = a.run;
  check_run(run);
  if (a.follow && list_checkpoints(run).empty()) {
    fmt::print("waiting for the first checkpoint in {}\n", (run / "checkpoints").string());
    std::fflush(stdout);
    while (list_checkpoints(run).empty()) std::this_thread::sleep_for(poll_interval);
  }
  const fs::path out = a.out.empty() ? run / "analysis.h5" : fs::path(a.out);
  RecordedProbe probe(out, identify(a.request, checkpoints_of(run).front().dir, run), options);
  while (!catch_up(probe, run) && a.follow) std::this_thread::sleep_for(poll_interval);
  fmt::print("\n{}\n{}: {} rows\n", emergence_table(probe.record()), out.string(), probe.record().rows.size());
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

  return run_tool("routescope-analyze", [&]() -> int {
    if (const auto done = parse_command_line(app, argc, argv)) return *done;
    if (*probe) return run_probe(a);
    if (*track) return run_track(a);
    if (*report) return run_report(a);
    check_run(a.run);
    fmt::print("{}", inspect_run(a.run));
    return 0;
  });
}
