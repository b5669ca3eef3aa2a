// The paper's three claims beside what a study found. Every verdict and every sentence follows from the findings at the
// last step that was probed, also where they contradict the paper; beside it stands what the same tests say of step 0,
// where every verdict has to fail. What counts as shown is decided in analysis/findings.
#pragma once

#include <string>
#include <vector>

#include "analysis/report/study.h"

namespace routescope::analysis {

struct Claim {
  std::string claim;          // of the paper
  std::string verdict;        // a few words
  std::string tone = "open";  // yes: all of the claim was found, part: a part of it, no: none of it, open: not decided
  std::vector<std::string> evidence = {};  // sentences
};

/// The three claims; none where no routes were probed.
std::vector<Claim> claims_of(const Study& study);

}  // namespace routescope::analysis
