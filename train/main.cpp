// routescope-train: trains a model as a configuration file says, or takes up a run where it stopped.
#include <spdlog/spdlog.h>
#include <yaml-cpp/yaml.h>

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

/// A value of the configuration, texts without the quotes that YAML may need.
std::string config_value(const TrainConfig& config, const std::string& key) {
  for (const auto& [name, value] : config_values(config)) {
    if (name != key) continue;
    const YAML::Node node = YAML::Load(value);
    return node.IsScalar() ? node.Scalar() : value;
  }
  throw UsageError("--get: found {}, expected a key such as run.dir", key);
}

int train(int argc, char** argv) {
  CLI::App app("Trains a model as CONFIG says; the same command takes up a run that was interrupted.");
  app.set_version_flag("--version", routescope_version());
  app.footer(
      "Exit status: 0 the run is finished; 1 error; 2 wrong usage; 130 (SIGINT) or 143 (SIGTERM) stopped after a\n"
      "checkpoint, the same command goes on.");
  std::string file;
  std::vector<std::string> overrides;
  std::string key;
  bool plan = false;
  PlanOptions plan_options;
  std::string cluster;
  app.add_option("CONFIG", file, "configuration (YAML)")->required();
  app.add_option("key.path=value", overrides, "keys that take the place of the file's, e.g. train.steps=100");
  app.add_flag("--plan", plan, "print memory, arithmetic and time of a step, and do nothing");
  app.add_option("--world-size", plan_options.world_size, "plan for so many ranks")->needs("--plan");
  app.add_option("--cluster", cluster, "plan for the cluster that FILE describes (configs/clusters/), not for here")
      ->needs("--plan")
      ->type_name("FILE");
  app.add_option("--get", key, "print the value of this key, and do nothing");
  if (const auto done = parse_command_line(app, argc, argv)) return *done;

  require_one_process();
  TrainConfig config = load_config(file, overrides);
  if (!key.empty()) {
    fmt::print("{}\n", config_value(config, key));
    return 0;
  }
  if (plan) {
    if (!cluster.empty()) plan_options.cluster = cluster;
    fmt::print("{}", plan_text(config, plan_options));
    return 0;
  }
  resolve_backend(config);
  resolve_recompute(config);
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
