// What is measured: the settings of a probe as they apply to one model and its tokens.
#pragma once

#include <string>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/results/settings.h"
#include "analysis/results/token_classes.h"
#include "model/files/config.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// Major version of analysis.h5 that the program writes. Rows of other versions were measured otherwise: version 2 has
/// no documents, contributions, learned gain or controls of the same contribution, and its margin is in nats a token.
inline constexpr std::int64_t analysis_version_major = 3;

/// Where the prompts of a task come from.
struct TaskOrigin {
  std::string name;    // of its file, without the ending; empty: the tokens are no task
  std::string sha256;  // of its file
  Direction direction = Direction::noising;
};

/// What all rows of one file share. Rows that were measured otherwise do not belong into it.
struct ProbeIdentity {
  ProbeTokens tokens;
  ProbeSettings settings = {};
  std::vector<std::string> sets;            // names of the sets of routes that are ablated; the slices by default
  std::string model_config;                 // config.json, one line
  std::vector<TokenClasses> classes = {};   // token_classes(tokens, settings)
  ProbeTokens patch = {};                   // the aligned sequences that Ablation::patch takes weights from; else empty
  std::string preregistration_sha256 = {};  // of what was decided before the first row; empty: nothing
  std::int64_t version = analysis_version_major;  // of the file that it was read from
  TaskOrigin task = {};

  /// Of the model. Throws Error if model_config does not describe one.
  model::ReadPlan plan() const;
};

/// The settings for a model of this configuration. One without reads has no sets and no ablations: there are its
/// writers alone. Throws Error for such a model if anything else is asked for, or tokens that do not fit it or each
/// other; UsageError for sets that the model does not have, Ablation::patch without aligned tokens, or too few
/// sequences to decide anything by.
ProbeIdentity identify(const model::ModelConfig& config, ProbeTokens tokens, ProbeSettings settings = {},
                       ProbeTokens patch = {});

}  // namespace routescope::analysis
