// routescope-train: trains a model as a configuration file says, or takes up a run where it stopped.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/command_line.h"
#include "data/error.h"
#include "train/config.h"
#include "train/loop.h"
#include "train/plan.h"
#include "train/signals.h"

namespace {

using namespace routescope;

/// A launcher that started several processes meant them to train together, which this build cannot.
void require_one_process() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* value = std::getenv(name);
    if (value && std::atoi(value) > 1) {
      throw Error("{}: found {}, expected 1: this build has no communicator and trains with one process", name, value);
    }
  }
}

int train(int argc, char** argv) {
  CLI::App app("Trains a model as CONFIG says; the same command takes up a run that was interrupted.");
  app.set_version_flag("--version", routescope_version());
  app.footer(
      "Exit status: 0 the run is finished; 1 error; 2 wrong usage; 130 (SIGINT) or 143 (SIGTERM) stopped after a\n"
      "checkpoint, the same command goes on.");
  std::string file;
  std::vector<std::string> overrides;
  bool plan = false;
  app.add_option("CONFIG", file, "configuration (YAML)")->required();
  app.add_option("key.path=value", overrides, "keys that take the place of the file's, e.g. train.steps=100");
  app.add_flag("--plan", plan, "print memory, arithmetic and time of a step, and do nothing");
  if (const auto done = parse_command_line(app, argc, argv)) return *done;

  require_one_process();
  TrainConfig config = load_config(file, overrides);
  resolve_backend(config, plan);
  resolve_recompute(config);
  if (plan) {
    fmt::print("{}", plan_text(config));
    return 0;
  }
  wait_for_signals_aside();
  const LoopResult result = run_training(config, {.stop = [](std::int64_t) { return received_signal(); }});
  if (result.stopped == 0) return 0;
  spdlog::info("stopped by signal {} after step {}; the same command goes on", result.stopped, result.step);
  return 128 + result.stopped;
}

}  // namespace

int main(int argc, char** argv) {
  spdlog::set_pattern("%H:%M:%S %v");
  return run_tool("routescope-train", [&] { return train(argc, argv); });
}
