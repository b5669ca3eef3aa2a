// A probe in one call.
#pragma once

#include <utility>

#include "analysis/probe/probe.h"

namespace routescope::testing {

inline analysis::ProbeRow probe_of(const model::Model& model, analysis::ProbeTokens tokens,
                                   analysis::ProbeSettings settings = {}, std::int64_t step = 0,
                                   analysis::ProbeTokens patch = {}) {
  return analysis::probe(
      model, analysis::identify(model.config(), std::move(tokens), std::move(settings), std::move(patch)), step);
}

}  // namespace routescope::testing
