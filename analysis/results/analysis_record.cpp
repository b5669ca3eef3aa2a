#include "analysis/results/analysis_record.h"

#include <algorithm>
#include <utility>

namespace routescope::analysis {

const ProbeRow* AnalysisRecord::find(std::int64_t step) const {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const ProbeRow& row) { return row.step == step; });
  return found == rows.end() ? nullptr : &*found;
}

void AnalysisRecord::put(ProbeRow row) {
  const auto place = std::lower_bound(rows.begin(), rows.end(), row.step,
                                      [](const ProbeRow& r, std::int64_t step) { return r.step < step; });
  if (place != rows.end() && place->step == row.step) {
    *place = std::move(row);
  } else {
    rows.insert(place, std::move(row));
  }
}

}  // namespace routescope::analysis
