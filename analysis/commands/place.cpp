#include "analysis/commands/place.h"

#include <filesystem>
#include <memory>

#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/base/paths.h"
#include "kernels/comm/launch.h"
#include "kernels/device.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

/// Throws UsageError if --out would replace what is probed or what it is probed with.
void check_outputs(const Place& place, const ProbeSettings& settings) {
  std::vector<data::NamedPath> inputs{{"--tokens", settings.tokens},
                                      {"--patch-from", settings.patch_from},
                                      {"--task", settings.task},
                                      {"--classes", settings.class_file},
                                      {"--preregistration", settings.preregistration}};
  for (const char* file : {"routing.h5", "routing.h5.journal", "config.yaml"})
    if (!place.run.empty()) inputs.push_back({"--run", fs::path(place.run) / file});
  for (const char* file : {"config.json", "model.safetensors", "model.safetensors.index.json", "MANIFEST.json"})
    if (!place.model.empty()) inputs.push_back({"--model", fs::path(place.model) / file});
  data::require_apart({{"--out", place.out}}, inputs);
}

}  // namespace

void add_place_options(CLI::App& command, Place& place) {
  command.add_option("--device", place.device, "Where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  constexpr double most_seconds = 1e9;
  data::add_number(command, "--timeout", place.timeout,
                   "Of several ranks: seconds that one may take over its sequences before it counts as lost",
                   data::above_zero, most_seconds);
}

int on_all_ranks(const Place& place, const ProbeSettings& settings,
                 const std::function<int(const Ranks&, const model::ModelOptions&)>& body) {
  check_outputs(place, settings);
  kernels::CommunicatorOptions options;
  options.timeout_seconds = place.timeout;
  // Only values on the host are exchanged, whatever computes them.
  const std::unique_ptr<kernels::Communicator> communicator =
      kernels::start_communicator(kernels::Device::cpu, options);
  if (place.device != "cpu" && kernels::device_count() > 0)
    kernels::select_device(communicator->place().local_rank % kernels::device_count());
  return body(Ranks{*communicator}, {.device = model::device_from_string(place.device, "--device")});
}

}  // namespace routescope::analysis
