// study.h5: several runs of one configuration, and what they say together (data/formats/study.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"

namespace routescope::analysis {

/// One run, at the steps of the study.
struct StudyRun {
  std::string name;        // of its directory
  std::int64_t seed = -1;  // run.seed of its config.yaml; -1: not known
  // The last rows of its routing.h5; 0 and NaN where there is none.
  std::int64_t trained_steps = 0, tokens_seen = 0;
  double train_loss = std::numeric_limits<double>::quiet_NaN();  // nats a token
  double valid_loss = std::numeric_limits<double>::quiet_NaN();
  AnalysisRecord record;  // its rows at the steps that all runs have
  Findings findings;      // of that record
};

struct Study {
  std::string about;                // what the models were trained on, in the words of who asks; may be empty
  std::vector<std::int64_t> steps;  // that every run was probed at
  std::vector<StudyRun> runs;
  Findings pooled;                         // rows are `steps`
  std::optional<AnalysisRecord> baseline;  // a wrapped standard model on the same tokens: one row

  std::size_t last() const { return steps.size() - 1; }
};

/// Writes study.h5, complete or absent. Throws Error.
void write_study(const Study& study, const std::filesystem::path& file);

}  // namespace routescope::analysis
