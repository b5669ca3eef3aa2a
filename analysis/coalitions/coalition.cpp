#include "analysis/coalitions/coalition.h"

#include <bit>
#include <cmath>
#include <stdexcept>

namespace routescope::analysis {

std::string player_name(std::size_t player) {
  const auto family = static_cast<model::Family>(player / 2);
  return model::to_string(family) + "." +
         model::to_string(player % 2 == 0 ? model::Sublayer::attn : model::Sublayer::mlp);
}

std::size_t player_of(std::size_t slice) {
  return slice / 6 * 2 + slice % 6 / 3;  // family, then sublayer, then depth
}

std::vector<double> shapley_values(std::span<const double> v) {
  if (!std::has_single_bit(v.size())) throw std::invalid_argument("shapley_values: expected 2^n coalitions");
  const auto n = static_cast<std::size_t>(std::countr_zero(v.size()));
  std::vector<double> weight(n, 0.0);  // by |S|: |S|! (n - |S| - 1)! / n!
  for (std::size_t size = 0; size < n; ++size)
    weight[size] = std::exp(std::lgamma(static_cast<double>(size) + 1) + std::lgamma(static_cast<double>(n - size)) -
                            std::lgamma(static_cast<double>(n) + 1));
  std::vector<double> out(n, 0.0);
  for (Coalition s = 0; s < v.size(); ++s) {
    for (std::size_t i = 0; i < n; ++i) {
      if (s >> i & 1) continue;
      out[i] += weight[static_cast<std::size_t>(std::popcount(s))] * (v[s | Coalition{1} << i] - v[s]);
    }
  }
  return out;
}

std::vector<double> marginals(std::span<const std::size_t> order, std::span<const double> along) {
  if (along.size() != order.size() + 1) throw std::invalid_argument("marginals: found another number of values");
  std::vector<double> out(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) out[order[i]] = along[i + 1] - along[i];
  return out;
}

std::vector<std::pair<std::size_t, std::size_t>> pairs_of(std::size_t n) {
  std::vector<std::pair<std::size_t, std::size_t>> out;
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = a + 1; b < n; ++b) out.emplace_back(a, b);
  return out;
}

}  // namespace routescope::analysis
