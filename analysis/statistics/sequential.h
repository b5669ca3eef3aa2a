// Confidence sequences: intervals of a mean that stay valid whenever one looks and whenever one stops.
#pragma once

#include <cstdint>
#include <span>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// An interval that holds the mean at every n at once (anytime-valid). It compares the t statistic with a normal
/// mixture over effect sizes of scale `effect_scale` standard deviations (Lai 1976; Wang & Ramdas 2023), which is exact
/// for normal values of any variance. For skewed values it is widened to hold the interval of the t statistic after
/// Hall's (1992) correction. analysis/README.md has its coverage. It is infinite for fewer than `sequential_least_n`
/// values and as long as the evidence is too weak for an end, NaN if a value is not finite, and of no width for equal
/// values. The scale changes how fast a set is decided, not whether the interval holds: 0.7 is within a tenth of the
/// best scale for effects and margins of 0.4 to 2 standard deviations among 18 sets.
inline constexpr double sequential_effect_scale = 0.7;
inline constexpr int sequential_least_n = 16;
Interval confidence_sequence(std::span<const double> values, double level = interval_level,
                             double effect_scale = sequential_effect_scale);
/// The p value that belongs to it: 1 / the greatest evidence so far that the mean is not zero, over looks after every
/// `look_every` values and after the last value. It is valid at any stopping time, and 1 before the first look.
double sequential_p_value(std::span<const double> values, std::int64_t look_every,
                          double effect_scale = sequential_effect_scale);

}  // namespace routescope::analysis
