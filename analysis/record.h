// analysis.h5: probe results, a row per training step (data/formats/analysis.md).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/probe.h"

namespace routescope {

/// What every row of one file has in common. Rows measured otherwise do not belong into it.
struct ProbeIdentity {
  ProbeTokens tokens;
  ProbeSettings settings = {};
  std::vector<std::string> sets;  // names of what was ablated; the slices by default
  std::string model_config;       // config.json, one line
};

/// A file's content, in memory. The file is small (a few kilobytes a row), so that it is always written whole, beside
/// its name, and renamed: whoever stops at whatever moment leaves the old file or the new one.
struct AnalysisRecord {
  ProbeIdentity identity;
  std::string created;         // UTC, ISO 8601; empty: save() sets it
  std::vector<ProbeRow> rows;  // ascending steps

  /// The row of a step, or null.
  const ProbeRow* find(std::int64_t step) const;
  /// Inserts or replaces the row of its step.
  void put(ProbeRow row);

  /// Throws Error: not such a file, written by a newer version, or damaged.
  static AnalysisRecord load(const std::filesystem::path& file);
  void save(const std::filesystem::path& file);
};

/// Takes up `file` for the given measurement, or starts it if it does not exist. Throws Error naming the file and what
/// differs (tokens, seed, model) when its rows were measured otherwise.
AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity);

}  // namespace routescope
