// A study: runs of one configuration, what was found in them together, and the wrapped models beside them. One run is a
// study of one. study.h5 holds it as a file (data/formats/study.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"
#include "data/records/routing_view.h"
#include "model/files/config.h"

namespace routescope::analysis {

struct StudyRun {
  std::string name;        // of its directory
  std::int64_t seed = -1;  // run.seed of its config.yaml; -1: not known
  // The last rows of its routing.h5; 0 and NaN where there is none.
  std::int64_t trained_steps = 0, tokens_seen = 0;
  double train_loss = std::numeric_limits<double>::quiet_NaN();  // nats a token
  double valid_loss = std::numeric_limits<double>::quiet_NaN();
  std::size_t checkpoints = 0;
  data::RoutingRecordView routing;    // empty where there is no routing.h5
  AnalysisRecord record;              // no rows: nothing was probed
  Findings findings;                  // of that record
  std::vector<AnalysisRecord> tasks;  // of its task-*.h5, by name
};

/// The probe of a wrapped model: its last row.
struct StudyBaseline {
  std::string name;
  AnalysisRecord record;
  Findings findings;
};

struct Study {
  std::string about;           // what the models were trained on, in the words of who asks; may be empty
  std::vector<StudyRun> runs;  // at least one; each was probed, unless it is alone
  std::vector<StudyBaseline> baselines;
  std::optional<model::ModelConfig> config;  // of the first run
  /// Of several runs as one; every run's rows are then those of the steps that all have. Absent for one run, and for
  /// runs that cannot be pooled: the study then speaks of the first run alone.
  std::optional<Findings> pooled;
  std::string not_pooled;  // why several runs are not pooled

  /// How many of the runs, from the first on, the study speaks of.
  std::size_t pooled_runs() const { return pooled ? runs.size() : 1; }
  /// What those say together.
  const Findings& findings() const { return pooled ? *pooled : runs.front().findings; }
  bool probed() const { return !runs.front().record.rows.empty(); }
};

/// Writes study.h5, complete or not at all. Throws Error where the runs are not one study of the 18 slices (a name that
/// comes twice, other sets, another configuration, no common step), or the baseline was probed on other tokens.
void write_study(const Study& study, const std::filesystem::path& file);

}  // namespace routescope::analysis
