// The probe results of one run, a row for each training step, in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/results/identity.h"
#include "analysis/results/row.h"

namespace routescope::analysis {

struct AnalysisRecord {
  ProbeIdentity identity;
  std::string created;         // UTC, ISO 8601; empty until the record is saved
  std::vector<ProbeRow> rows;  // ascending steps

  /// The row of a step, or null.
  const ProbeRow* find(std::int64_t step) const;
  /// Inserts or replaces the row of its step.
  void put(ProbeRow row);
};

}  // namespace routescope::analysis
