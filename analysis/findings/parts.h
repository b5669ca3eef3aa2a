// Keys and values together: what both do beyond what either does (MATH.md, "Routes as edges").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/findings/resampled.h"
#include "analysis/routes/ablation.h"

namespace routescope::analysis {

/// effect(both) - effect(value) - effect(key) of every set, of one donor, nats a token. The interval is Student's over
/// documents (and runs, two_way.h), the p value two-sided, adjusted by Holm over the sets. NaN where one of the three
/// was not tested.
struct PartInteraction {
  Donor donor = Donor::mean;
  std::vector<Estimate> delta_nll;          // [set]
  std::vector<double> p_value, p_adjusted;  // [set]
};

/// "mean", "resample" or "patch": the ablations of this donor by parts.
std::string parts_name(Donor donor);

/// Of every donor of which value, key and both were measured on all sequences, in the order of Donor.
std::vector<PartInteraction> interactions_at(std::span<const Rows> runs, std::size_t row, std::size_t sequences,
                                             std::span<const std::int64_t> documents);

}  // namespace routescope::analysis
