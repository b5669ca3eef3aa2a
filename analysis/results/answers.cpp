#include "analysis/results/answers.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace routescope::analysis {

std::string to_string(Direction direction) {
  return direction == Direction::noising ? "noising" : "denoising";
}

std::string describe(Metric metric) {
  constexpr std::array texts{"logit of the answer minus that of the distractor, NaN without one",
                             "probability of the answer",
                             "tokens with a larger logit than the answer, those with an equal one as halves"};
  return texts[static_cast<std::size_t>(metric)];
}

MetricValues metrics_of(std::span<const double> logits, std::int32_t answer, std::int32_t distractor) {
  const double own = logits[static_cast<std::size_t>(answer)];
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0, larger = 0, equal = -1;  // itself is not counted
  for (const double logit : logits) {
    sum += std::exp(logit - largest);
    larger += logit > own;
    equal += logit == own;
  }
  const double difference =
      distractor < 0 ? std::numeric_limits<double>::quiet_NaN() : own - logits[static_cast<std::size_t>(distractor)];
  const double rank = std::isnan(own) ? own : larger + 0.5 * equal;
  return {difference, std::exp(own - largest) / sum, rank};
}

}  // namespace routescope::analysis
