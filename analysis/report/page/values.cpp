#include "analysis/report/page/values.h"

#include <cmath>

namespace routescope::analysis {

using nlohmann::json;

json json_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0) return 0;
  const double scale = std::pow(10.0, 4 - std::ceil(std::log10(std::abs(value))));
  return std::isfinite(scale) ? std::round(value * scale) / scale : 0.0;
}

json json_numbers(const std::vector<double>& values) {
  json out = json::array();
  for (double value : values) out.push_back(json_number(value));
  return out;
}

json json_estimate(const Estimate& estimate) {
  return json::array({json_number(estimate.value), json_number(estimate.ci.lower), json_number(estimate.ci.upper)});
}

json json_step(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json json_steps(const Estimate& estimate) {
  return json::array({json_step(estimate.value), json_step(estimate.ci.lower), json_step(estimate.ci.upper)});
}

std::vector<std::size_t> thinned(std::size_t n, std::size_t count) {
  std::vector<std::size_t> out;
  if (n <= count) {
    for (std::size_t i = 0; i < n; ++i) out.push_back(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) out.push_back(count == 1 ? n - 1 : i * (n - 1) / (count - 1));
  }
  return out;
}

}  // namespace routescope::analysis
