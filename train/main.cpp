// routescope-train: trains a model as a configuration file says; resumes a run that was interrupted.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/base/text.h"
#include "data/yaml/yaml.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/launch.h"
#include "kernels/cpu/threads.h"
#include "train/config/config.h"
#include "train/config/run_directory.h"
#include "train/plan/memory.h"
#include "train/plan/plan_text.h"
#include "train/plan/precision.h"
#include "train/run/loop.h"
#include "train/run/signals.h"

namespace {

using namespace routescope;
using namespace routescope::train;

constexpr const char* kTool = "routescope-train";
// How long another rank leaves an error to rank 0, which reports it.
constexpr std::chrono::seconds kReportSeconds{3};

/// Trains as one of the job's ranks. An error that all ranks know is reported by rank 0, before any rank ends and the
/// launcher kills the others.
int train_as_rank(TrainConfig config) {
  const std::unique_ptr<kernels::Communicator> communicator =
      kernels::start_communicator(config.device == "cuda" ? kernels::Device::cuda : kernels::Device::cpu,
                                  {.timeout_seconds = config.distributed.timeout_seconds,
                                   .advice = "the same command resumes at the last checkpoint"});
  const bool first = communicator->rank() == 0;
  int status = 0;
  try {
    // All ranks compute as rank 0 does.
    kernels::agree(*communicator, "precision", [&] {
      if (first) resolve_precision(config);
    });
    config.precision = communicator->broadcast(config.precision, "precision");
    kernels::agree(*communicator, "memory", [&] { resolve_recompute(config, communicator->size()); });
    // All ranks use the level that fits rank 0's device.
    config.kernels.recompute = communicator->broadcast(config.kernels.recompute, "kernels.recompute");
    const LoopResult result = run_training(
        config, *communicator,
        {.stop = [](std::int64_t) { return received_signal(); }, .interrupted = [] { return received_signal() != 0; }});
    if (result.stopped != 0) {
      status = 128 + result.stopped;
      spdlog::info("stopped by signal {} after step {}; the same command resumes the run", result.stopped, result.step);
    }
  } catch (const kernels::AgreedError& error) {
    status = 1;
    if (first) data::run_tool(kTool, [&error]() -> int { throw error; });
  } catch (const std::exception& error) {
    if (communicator->size() == 1) throw;
    const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    kernels::abandon(1,
                     fmt::format("{}: error: {}{}", kTool, first ? "" : fmt::format("rank {}: ", communicator->rank()),
                                 memory ? "out of memory" : data::printable(error.what())));
  }
  communicator->barrier("the end");
  return status;
}

/// A value of the configuration. Texts are without the quotes that YAML may need.
std::string config_value(const TrainConfig& config, const std::string& key) {
  for (const auto& [name, value] : config_values(config)) {
    if (name != key) continue;
    const YAML::Node node = data::parse_yaml(value, key);
    return node.IsScalar() ? node.Scalar() : value;
  }
  throw data::UsageError("--get: found {}, expected a key such as run.dir", key);
}

int train_command(int argc, char** argv, int rank) {
  CLI::App app("Trains a model as CONFIG says; the same command resumes a run that was interrupted.");
  app.set_version_flag("--version", data::routescope_version());
  app.footer(
      "Under mpirun or srun every process is a rank of one run.\n\n"
      "Exit status: 0 the run is finished; 1 error; 2 wrong usage; 75 another rank was lost; 128 + N\n"
      "stopped by signal N after a checkpoint. After the last two the same command resumes the run.");
  std::string file;
  std::vector<std::string> overrides;
  std::string key;
  bool plan = false;
  PlanOptions plan_options;
  std::string cluster;
  app.add_option("CONFIG", file, "configuration (YAML)")->required();
  app.add_option("key.path=value", overrides, "values that replace those of the file, e.g. train.steps=100");
  app.add_flag("--plan", plan, "print memory, arithmetic and time of a step, and train nothing");
  data::add_number(app, "--world-size", plan_options.world_size, "number of ranks to plan for")->needs("--plan");
  app.add_option("--cluster", cluster,
                 "plan for the cluster that FILE describes (configs/clusters/), not for this machine")
      ->needs("--plan")
      ->type_name("FILE");
  app.add_option("--get", key, "print the value of this key, and train nothing");
  if (const auto done = data::parse_command_line(app, argc, argv)) return *done;

  TrainConfig config = load_config(file, overrides);
  if (!plan) check_place(file, overrides, config);
  if (!key.empty()) {
    const std::string value = config_value(config, key);
    if (rank == 0) fmt::print("{}\n", value);
    return 0;
  }
  if (plan) {
    if (!cluster.empty()) plan_options.cluster = cluster;
    if (rank == 0) fmt::print("{}", data::printable_lines(plan_text(config, plan_options)));
    return 0;
  }
  start_signal_thread();
  resolve_backend(config);
  return train_as_rank(config);
}

}  // namespace

int main(int argc, char** argv) {
  kernels::settle_threads(argv);
  return data::run_tool(kTool, [&] {
    const kernels::Place place = kernels::launched_place();
    if (place.rank != 0) spdlog::set_level(spdlog::level::err);
    try {
      return train_command(argc, argv, place.rank);
    } catch (const data::UsageError&) {
      // Every rank meets the same error: rank 0 reports it.
      if (place.rank == 0) throw;
      std::this_thread::sleep_for(kReportSeconds);
      return 2;
    } catch (const std::exception&) {
      // Before the ranks are connected they mostly meet the same error. Then rank 0's report ends the job within this
      // time; an error of another rank alone is reported after it.
      if (place.rank != 0) std::this_thread::sleep_for(kReportSeconds);
      throw;
    }
  });
}
