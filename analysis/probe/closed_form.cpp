#include "analysis/probe/closed_form.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ops.h"
#include "model/wrap/wrap.h"

namespace routescope::analysis {

bool has_closed_form(const model::Model& model) {
  const std::vector<model::ReadWeights>& reads = model.weights().reads;
  const kernels::Stream stream{.device = model.options().device};
  return !reads.empty() && std::all_of(reads.begin(), reads.end(), [&](const model::ReadWeights& read) {
    const std::vector<double> query = kernels::host_values<double>(read.query, stream);
    return std::all_of(query.begin(), query.end(), [](double value) { return value == 0; });
  });
}

double closed_form_error(const model::Model& model, int read, std::span<const double> alpha) {
  const model::ReadWeights& weights = model.weights().reads.at(static_cast<std::size_t>(read));
  const double bias =
      weights.bias
          ? kernels::host_values<double>(weights.bias, kernels::Stream{.device = model.options().device}).front()
          : model.config().recency_bias;
  const std::size_t n = model.plan().reads[static_cast<std::size_t>(read)].columns.size();
  const model::WrappedAlpha closed = model::wrapped_alpha(bias, static_cast<std::int64_t>(n));
  double error = 0;
  for (std::size_t i = 0; i < alpha.size(); ++i) {
    const double difference = std::abs(alpha[i] - (i % n == n - 1 ? closed.current : closed.other));
    error = std::max(error, std::isnan(difference) ? INFINITY : difference);
  }
  return error;
}

}  // namespace routescope::analysis
