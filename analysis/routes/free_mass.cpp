#include "analysis/routes/free_mass.h"

#include <limits>
#include <set>

namespace routescope::analysis {

FreeMass::FreeMass(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set)
    : reads(static_cast<double>(set.reads.size())),
      changed(static_cast<double>(changed_reads(plan, ablation, whole(set)).size())) {
  std::set<int> with_sources;
  for (const auto& route : set.routes) with_sources.insert(route.first);
  certain = static_cast<double>(with_sources.size()) - changed;
}

double FreeMass::of(double mass) const {
  return changed > 0 ? (mass * reads - certain) / changed : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace routescope::analysis
