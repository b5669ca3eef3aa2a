// Compares a routing record with the rows that routing_fixture.h wrote.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "data/hdf5/file.h"
#include "data/records/routing_file.h"
#include "data/records/routing_view.h"
#include "tests/data/records/routing_fixture.h"

namespace routescope::data {

inline bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  return true;
}

/// Every member that the file has a field for; a NaN is equal to a NaN.
template <class Row>
bool same_members(const Row& a, const Row& b, const std::vector<RowField<Row>>& fields) {
  const auto same_value = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
  return a.step == b.step && std::ranges::all_of(fields, [&](const RowField<Row>& field) {
           return std::ranges::equal(field.get(a), field.get(b), same_value);
         });
}

inline bool same(const RoutingSnapshot& a, const RoutingSnapshot& b) {
  static const auto fields = snapshot_fields();
  return same_members(a, b, fields);
}

inline bool same(const TrainRow& a, const TrainRow& b) {
  static const auto fields = train_fields();
  return same_members(a, b, fields);
}

// "" if the file holds exactly what record_step() wrote for steps 1 .. last, else what is wrong. With last < 0 the
// steps are counted from the file itself, and tables may end at different steps, as they do while a writer is at work.
inline std::string check(const std::filesystem::path& file, const RoutingRecordInfo& info, std::int64_t last) {
  const RoutingRecordView view = RoutingRecordView::load(file);
  if (view.info.reads != info.reads || view.info.probe_tokens != info.probe_tokens ||
      view.info.probe_documents != info.probe_documents || view.info.config != info.config ||
      view.info.layer != info.layer || view.info.sources != info.sources || view.info.hidden_size != info.hidden_size)
    return "the fixed part differs";
  const auto count = [&](std::size_t found, std::int64_t every) {
    return last < 0 || static_cast<std::int64_t>(found) == last / every;
  };
  if (!count(view.train.size(), 1)) return fmt::format("{} training rows", view.train.size());
  if (!count(view.snapshots.size(), 2)) return fmt::format("{} snapshots", view.snapshots.size());
  if (!count(view.valid.size(), 2)) return fmt::format("{} validation rows", view.valid.size());
  if (!count(view.alpha_steps.size(), 4)) return fmt::format("{} rows of alpha", view.alpha_steps.size());
  for (std::size_t i = 0; i < view.train.size(); ++i)
    if (!same(view.train[i], train_at(static_cast<std::int64_t>(i) + 1))) return fmt::format("training row {}", i);
  for (std::size_t i = 0; i < view.snapshots.size(); ++i)
    if (!same(view.snapshots[i], snapshot_at(2 * static_cast<std::int64_t>(i) + 2, info)))
      return fmt::format("snapshot {}", i);
  for (std::size_t i = 0; i < view.valid.size(); ++i) {
    const ValidRow expected = valid_at(2 * static_cast<std::int64_t>(i) + 2);
    if (view.valid[i].step != expected.step || view.valid[i].loss != expected.loss)
      return fmt::format("validation row {}", i);
  }
  // One opening for both: the file of this name may be another, shorter one (a resumed record) than a moment ago.
  std::string wrong;
  routing_format::with_record(file, [&](const hdf5::File& open, bool) {
    const auto alpha_steps = open.read<std::int64_t>("/alpha_step");
    for (std::size_t i = 0; i < alpha_steps.size(); ++i) {
      const std::int64_t step = 4 * static_cast<std::int64_t>(i) + 4;
      if (alpha_steps[i] != step) wrong = fmt::format("alpha_step {}", i);
      const auto row = open.dataset("/alpha").read_rows<float>(static_cast<std::int64_t>(i), 1);
      if (!same(row, alpha_at(step, info))) wrong = fmt::format("alpha row {}", i);
    }
  });
  return wrong;
}

}  // namespace routescope::data
