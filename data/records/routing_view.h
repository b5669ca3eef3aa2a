// Reading routing.h5, at any moment of a run (data/formats/routing.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/records/routing_rows.h"

namespace routescope::data {

/// The whole record except per-token alpha, read at once. Members of rows that an older file has no column for are
/// missing_value(). Works while a run writes. Throws Error.
struct RoutingRecordView {
  RoutingRecordInfo info;
  std::vector<RoutingSnapshot> snapshots;
  std::vector<std::int64_t> alpha_steps;
  std::vector<TrainRow> train;
  std::vector<ValidRow> valid;

  static RoutingRecordView load(const std::filesystem::path& file);
  /// alpha [read, sequences, positions, source] at alpha_steps[index].
  static std::vector<float> load_alpha(const std::filesystem::path& file, std::int64_t index);
};

}  // namespace routescope::data
