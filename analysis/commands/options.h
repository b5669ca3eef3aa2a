// What `probe` and `track` are asked for: the options of a measurement, as typed and as meant.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "analysis/record/run_probe.h"

namespace routescope::analysis {

struct ProbeArguments {
  std::string run, model, step = "latest", out, device = "cpu";
  ProbeRequest request;
  bool follow = false;
  double timeout = 86400;  // a rank measures all of its sequences between two words to the others

  // As typed; settle() puts them into the request.
  std::vector<std::string> ablations = {"mask"}, by;
};

/// All options of a measurement but where its models and results are.
void add_measurement_options(CLI::App& command, ProbeArguments& arguments);

/// Names become what they stand for. Throws UsageError naming the option.
void settle(ProbeArguments& arguments);

}  // namespace routescope::analysis
