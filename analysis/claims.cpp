#include "analysis/claims.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ops.h"
#include "model/wrap.h"

namespace routescope {

bool has_closed_form(const Model& model) {
  const std::vector<ReadWeights>& reads = model.weights().reads;
  const Stream stream{.device = model.options().device};
  return !reads.empty() && std::all_of(reads.begin(), reads.end(), [&](const ReadWeights& read) {
    const std::vector<double> query = host_values<double>(read.query, stream);
    return std::all_of(query.begin(), query.end(), [](double value) { return value == 0; });
  });
}

double closed_form_error(const Model& model, int read, std::span<const double> alpha) {
  const ReadWeights& weights = model.weights().reads.at(static_cast<std::size_t>(read));
  const double bias = weights.bias ? host_values<double>(weights.bias, Stream{.device = model.options().device}).front()
                                   : model.config().recency_bias;
  const std::size_t n = model.plan().reads[static_cast<std::size_t>(read)].columns.size();
  const WrappedAlpha closed = wrapped_alpha(bias, static_cast<std::int64_t>(n));
  double error = 0;
  for (std::size_t i = 0; i < alpha.size(); ++i) {
    const double difference = std::abs(alpha[i] - (i % n == n - 1 ? closed.current : closed.other));
    error = std::max(error, std::isnan(difference) ? INFINITY : difference);
  }
  return error;
}

double greatest_spread(const ProbeRow& row) {
  double out = 0;
  for (double variance : row.alpha_variance) {
    if (!std::isnan(variance)) out = std::max(out, std::sqrt(variance));
  }
  return out;
}

bool holds_closed_form(const ProbeRow& row) {
  return row.closed_form_error <= f32_rounding && greatest_spread(row) <= f32_rounding;
}

bool shown_above_control(const Motif& motif) {
  return !std::isnan(motif.shown_from);
}

bool largest_differ(const Dissociation& row) {
  return row.largest_mass != row.largest_effect && row.p_largest < 1 - interval_level;
}

}  // namespace routescope
