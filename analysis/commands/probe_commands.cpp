#include "analysis/commands/probe_commands.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "analysis/commands/checkpoints.h"
#include "analysis/commands/options.h"
#include "analysis/commands/place.h"
#include "analysis/commands/ranks.h"
#include "analysis/commands/tables.h"
#include "analysis/commands/tracker.h"
#include "analysis/findings/findings.h"
#include "analysis/record/run_probe.h"
#include "data/base/error.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

void print_findings(const AnalysisRecord& record, const Ranks& ranks) {
  if (ranks.communicator.rank() != 0 || record.rows.empty()) return;
  if (const std::string warning = documents_warning(record.identity.tokens); !warning.empty())
    ranks.print("{}\n", warning);
  ranks.print("{}{}\n", findings_text(find(record), record), cost_line(record.rows.back().cost));
}

ProbeIdentity identity(const ProbeSettings& settings, const fs::path& model, const fs::path& run, const Ranks& ranks) {
  ProbeIdentity out;
  kernels::agree(ranks.communicator, "tokens to probe with", [&] { out = identify(settings, model, run); });
  return out;
}

/// What a model has learned counts from step 0, which is therefore probed before any other step.
void probe_initial(RecordedProbe& probe, const fs::path& run, std::int64_t first, const Ranks& ranks) {
  if (run.empty() || first == 0) return;
  const auto where = [&] { return ranks.checkpoints([&] { return initial_checkpoint(run); }); };
  std::vector<data::CheckpointEntry> initial = where();
  const auto measure = [&] {
    if (initial.empty() || (probe.record().find(0) && probe.is_of(0, initial.front().dir))) return;
    probe.row(0, initial.front().dir, first < 0 ? OtherWeights::probe_again : OtherWeights::refuse);
    ranks.print("{}\n", step_line(*probe.record().find(0), probe.record().identity));
  };
  try {
    measure();
  } catch (const std::runtime_error&) {
    // A run that is going on may just have moved it. All ranks get here together.
    const std::vector<data::CheckpointEntry> now = where();
    if (now.empty() || now.front().dir == initial.front().dir) throw;
    initial = now;
    measure();
  }
}

int run_probe(const Place& place, const std::string& step, const ProbeSettings& settings, const Ranks& ranks,
              const model::ModelOptions& options) {
  if (place.run.empty() == place.model.empty()) throw data::UsageError("probe: expected either --run or --model");
  if (!place.model.empty() && settings.tokens.empty() && settings.task.empty())
    throw data::UsageError("probe: --model needs --tokens or --task");
  std::vector<data::CheckpointEntry> models{{0, place.model}};
  if (!place.run.empty()) models = ranks.checkpoints([&] { return chosen_checkpoints(place.run, step); });
  fs::path out = place.out;
  if (out.empty() && !place.run.empty()) out = record_file(place.run, settings);
  RecordedProbe probe(out, identity(settings, models.front().dir, place.run, ranks), options, ranks.communicator,
                      !place.run.empty());
  probe_initial(probe, place.run, models.front().step, ranks);
  for (const data::CheckpointEntry& entry : models) {
    if (probe.has(entry.step)) {
      ranks.print("{}: step {} is there already{}{}\n", out.string(), entry.step,
                  settings.atlas ? ", with its atlas" : "", settings.writers ? ", with its writers" : "");
    }
    const ProbeRow& row = probe.row(entry.step, entry.dir);
    ranks.print("{}\n", row_table(row, probe.record().identity));
  }
  print_findings(probe.record(), ranks);
  if (!out.empty()) ranks.print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

int run_track(const Place& place, bool follow, const ProbeSettings& settings, const Ranks& ranks,
              const model::ModelOptions& options) {
  const fs::path run = place.run;
  check_run(run);
  const auto nothing_yet = [&] { return ranks.ask([&] { return saved_checkpoints(run).empty(); }); };
  if (follow && nothing_yet()) {
    ranks.print("waiting for the first checkpoint in {}\n", (run / "checkpoints").string());
    while (nothing_yet()) wait_for_checkpoints();
  }
  const fs::path out = place.out.empty() ? record_file(run, settings) : fs::path(place.out);
  // Of the checkpoints the one that stays the longest.
  const auto newest = ranks.checkpoints([&] { return some_checkpoints(run); }).back();
  RecordedProbe probe(out, identity(settings, newest.dir, run, ranks), options, ranks.communicator);
  probe_initial(probe, run, -1, ranks);
  Tracker tracker(probe, run, ranks);
  while (!tracker.catch_up() && follow) tracker.wait();
  ranks.print("\n{}\n", emergence_table(probe.record()));
  print_findings(probe.record(), ranks);
  ranks.print("{}: {} rows\n", out.string(), probe.record().rows.size());
  return 0;
}

}  // namespace

Subcommand add_probe_command(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand(
      "probe", "Mass of every slice (or set of routes), the effect of ablating it and of controls, with intervals");
  const auto place = std::make_shared<Place>();
  const auto settings = std::make_shared<ProbeSettings>();
  const auto step = std::make_shared<std::string>("latest");
  command->add_option("--run", place->run, "Run directory");
  command->add_option("--model", place->model, "Model directory, in place of a run");
  command->add_option("--step", *step, "Of a run: a saved step, latest or all")->capture_default_str();
  command->add_option("--out", place->out,
                      "analysis.h5 to write (of a run: DIR/analysis.h5, of a task DIR/task-NAME.h5)");
  add_measurement_options(*command, *settings);
  add_place_options(*command, *place);
  return {command, [=] {
            return on_all_ranks(*place, *settings, [&](const Ranks& ranks, const model::ModelOptions& options) {
              return run_probe(*place, *step, *settings, ranks, options);
            });
          }};
}

Subcommand add_track_command(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand("track", "Probe every saved step of a run that was not probed yet");
  const auto place = std::make_shared<Place>();
  const auto settings = std::make_shared<ProbeSettings>();
  const auto follow = std::make_shared<bool>(false);
  command->add_option("--run", place->run, "Run directory")->required();
  command->add_flag("--follow", *follow, "Wait for further steps until the run has saved its last; oldest first");
  command->add_option("--out", place->out, "analysis.h5 to write (DIR/analysis.h5, of a task DIR/task-NAME.h5)");
  add_measurement_options(*command, *settings);
  add_place_options(*command, *place);
  return {command, [=] {
            return on_all_ranks(*place, *settings, [&](const Ranks& ranks, const model::ModelOptions& options) {
              return run_track(*place, *follow, *settings, ranks, options);
            });
          }};
}

}  // namespace routescope::analysis
