// coalitions.h5: coalitions of slices, a row per training step (data/formats/coalitions.md). Written whole beside its
// name and renamed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/coalitions/measure_coalitions.h"
#include "data/records/record_field.h"

namespace routescope::analysis {

/// What all rows of a coalitions.h5 share.
struct CoalitionIdentity {
  ProbeTokens tokens;
  CoalitionSettings settings = {};
  std::string model_config;  // config.json, one line
};

/// All rows of a coalitions.h5, by step.
struct CoalitionRecord {
  CoalitionIdentity identity;
  std::string created;
  std::vector<CoalitionRow> rows;
};

/// One line of JSON.
std::string to_json(const CoalitionSettings& settings);
/// Throws Error naming `where` and the key that is missing, unknown, of another kind or out of range.
CoalitionSettings coalition_settings_from_json(const std::string& text, const std::string& where);

/// Every dataset [step, ...] of a row, described once.
std::vector<data::RowField<CoalitionRow>> coalition_fields();
data::AxisLengths coalition_axes(const CoalitionIdentity& identity);

/// "coalitions.h5", or "coalitions-task-NAME.h5" of the prompts of a task: where coalitions of a run go.
std::string coalition_name(const std::string& task);
/// Throws Error: not such a file, of another version, or damaged.
CoalitionRecord load_coalitions(const std::filesystem::path& file);
/// Complete or not at all. Sets `created` if it is empty. Throws Error.
void save_coalitions(CoalitionRecord& record, const std::filesystem::path& file);
/// The record in `file`, or an empty one if there is no such file. Throws Error naming the file and what differs when
/// its rows were measured otherwise than `identity` says.
CoalitionRecord open_coalitions(const std::filesystem::path& file, const CoalitionIdentity& identity);
/// What is measured otherwise, as "WHAT: found ..., expected ..."; empty if nothing is.
std::string difference_of(const CoalitionIdentity& found, const CoalitionIdentity& expected);

}  // namespace routescope::analysis
