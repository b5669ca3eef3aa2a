// Numbers as the page's data holds them.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Four significant digits; null for what is not there (or not finite), since JSON has no NaN.
nlohmann::json json_number(double value);
nlohmann::json json_numbers(const std::vector<double>& values);
/// [value, lower, upper]
nlohmann::json json_estimate(const Estimate& estimate);
/// The same of training steps, which are exact.
nlohmann::json json_step(double value);
nlohmann::json json_steps(const Estimate& estimate);

/// At most `count` of n indices, evenly, the first and the last among them.
std::vector<std::size_t> thinned(std::size_t n, std::size_t count);

}  // namespace routescope::analysis
