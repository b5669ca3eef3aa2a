// What the page says of a study besides its figures: the facts at its head, and how each number was measured.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "analysis/report/study.h"

namespace routescope::analysis {

/// A name and what there is to say of it.
using Entries = std::vector<std::pair<std::string, std::string>>;

/// The models, their training, and what was probed.
Entries facts_of(const Study& study);
/// What each number of the page is: mass, effect, every ablation, intervals, onsets.
Entries methods_of(const Study& study);

}  // namespace routescope::analysis
