// analysis.h5: probe results, a row per training step (data/formats/analysis.md).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/probe/probe.h"

namespace routescope::analysis {

/// What every row of one file has in common. Rows measured otherwise do not belong into it.
struct ProbeIdentity {
  ProbeTokens tokens;
  ProbeSettings settings = {};
  std::vector<std::string> sets;           // names of what was ablated; the slices by default
  std::string model_config;                // config.json, one line
  std::vector<TokenClasses> classes = {};  // token_classes(tokens, settings)
  ProbeTokens patch = {};                  // whose routing Ablation::patch takes; empty without it

  /// Of the model. Throws Error if model_config does not describe one.
  model::ReadPlan plan() const;
};

/// A file's content, in memory. The file is small (some ten kilobytes a row), so that it is always written whole,
/// beside its name, and renamed: whoever stops at whatever moment leaves the old file or the new one.
struct AnalysisRecord {
  ProbeIdentity identity;
  std::string created;         // UTC, ISO 8601; empty: save() sets it
  std::vector<ProbeRow> rows;  // ascending steps

  /// The row of a step, or null.
  const ProbeRow* find(std::int64_t step) const;
  /// Inserts or replaces the row of its step.
  void put(ProbeRow row);

  /// Throws Error: not such a file, of another version, or damaged.
  static AnalysisRecord load(const std::filesystem::path& file);
  /// With what follows from the rows (findings.h), which load() does not read. Throws Error; std::logic_error naming a
  /// field of a row that has another size than the identity says.
  void save(const std::filesystem::path& file);
};

/// Takes up `file` for the given measurement, or starts it if it does not exist. Throws Error naming the file and what
/// differs (tokens, settings, sets, model) when its rows were measured otherwise.
AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity);

}  // namespace routescope::analysis
