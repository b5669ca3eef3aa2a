// The study that `report` and `compare` load and show on the same page.
#pragma once

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "analysis/circuits/circuit.h"
#include "analysis/coalitions/coalition_file.h"
#include "analysis/record/study_file.h"

namespace routescope::analysis {

/// What is to be loaded, as the command line gives it.
struct StudyRequest {
  std::vector<std::filesystem::path> runs;
  std::vector<std::filesystem::path> baselines;  // analysis.h5 of wrapped models
  std::string about;                             // what the models were trained on; may be empty
};

/// The mean of some values and their range. NaN values are left out.
struct OverRuns {
  double mean = std::numeric_limits<double>::quiet_NaN(), least = mean, greatest = mean;
};
OverRuns over_runs(const std::vector<double>& values);

/// Throws Error naming the file or directory that is missing or not what it should be. Several runs, and a run with a
/// baseline, must have been probed; a run alone need not.
Study load_study(const StudyRequest& request);

/// Circuits of a run that were measured alike: with the prompts of a task, or with text, where `task` is empty.
struct RunCircuits {
  std::string task;
  CircuitRecord record;  // at least one row
};
using StudyCircuits = std::vector<std::vector<RunCircuits>>;  // [run]

/// Of each run what is in its circuit.h5 and then in every circuit-task-NAME.h5, by name. Throws Error for a file that
/// is damaged or has no row.
StudyCircuits load_study_circuits(const std::vector<std::filesystem::path>& runs);

/// Likewise coalitions, in coalitions.h5 and every coalitions-task-NAME.h5.
struct RunCoalitions {
  std::string task;
  CoalitionRecord record;  // at least one row
};
using StudyCoalitions = std::vector<std::vector<RunCoalitions>>;  // [run]
StudyCoalitions load_study_coalitions(const std::vector<std::filesystem::path>& runs);

/// What load_study() ends with: finds, and pools where it can.
Study make_study(std::vector<StudyRun> runs, std::vector<StudyBaseline> baselines = {}, std::string about = {});

}  // namespace routescope::analysis
