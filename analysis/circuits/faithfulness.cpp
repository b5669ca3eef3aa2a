#include "analysis/circuits/faithfulness.h"

#include <algorithm>
#include <numeric>

#include "analysis/statistics/documents.h"

namespace routescope::analysis {
namespace {

/// n - 1 draws of n units spread as n units do (resample_indices()); here all resamples share one stream.
std::size_t draw(std::mt19937_64& random, std::size_t n) {
  return below(static_cast<std::uint32_t>(random()), n);
}

}  // namespace

Resampled& Resampled::add(double weight, const Resampled& other) {
  if (resampled.empty()) {
    value = 0;
    resampled.assign(other.resampled.size(), 0.0);
  }
  value += weight * other.value;
  for (std::size_t b = 0; b < resampled.size(); ++b) resampled[b] += weight * other.resampled[b];
  return *this;
}

DocumentRatios::DocumentRatios(std::span<const double> none, std::span<const std::int64_t> documents,
                               const RandomKey& key)
    : of_sequence_(document_numbers(documents, none.size())),
      documents_(of_sequence_.empty() ? 0 : *std::max_element(of_sequence_.begin(), of_sequence_.end()) + 1),
      key_(key),
      none_(by_document(none)),
      counts_(std::size_t{ratio_resamples} * documents_, 0),
      none_p_(p_above(document_values(none, documents))) {
  if (documents_ < 2) return;
  std::mt19937_64 random = generator(key_, Use::resample);
  for (std::size_t b = 0; b < ratio_resamples; ++b)
    for (std::size_t i = 0; i + 1 < documents_; ++i) ++counts_[b * documents_ + draw(random, documents_)];
}

std::vector<double> DocumentRatios::by_document(std::span<const double> values) const {
  std::vector<double> sums(documents_, 0.0);
  for (std::size_t q = 0; q < values.size(); ++q) sums[of_sequence_[q]] += values[q];
  return sums;
}

double DocumentRatios::resampled_sum(std::size_t resample, std::span<const double> sums) const {
  const std::uint16_t* counts = &counts_[resample * documents_];
  double sum = 0;
  for (std::size_t document = 0; document < documents_; ++document) sum += counts[document] * sums[document];
  return sum;
}

Resampled DocumentRatios::faithfulness(std::span<const double> loss) const {
  Resampled out{nan, std::vector<double>(ratio_resamples, nan)};
  if (!shown()) return out;
  const std::vector<double> lost = by_document(loss);
  const auto total = [](const std::vector<double>& sums) { return std::accumulate(sums.begin(), sums.end(), 0.0); };
  out.value = 1 - total(lost) / total(none_);
  for (std::size_t b = 0; b < ratio_resamples; ++b)
    out.resampled[b] = 1 - resampled_sum(b, lost) / resampled_sum(b, none_);
  return out;
}

Estimate DocumentRatios::estimate(const Resampled& number) const {
  return {number.value, percentile_interval(number.resampled, static_cast<double>(documents_) - 1)};
}

Estimate DocumentRatios::mean_of_sample(std::span<const Resampled> numbers, const Resampled* minus_from) const {
  const std::size_t n = numbers.size();
  if (n == 0) return {};
  Resampled out{0, std::vector<double>(ratio_resamples, nan)};
  const auto of = [&](double own, double whole) { return minus_from ? whole - own : own; };
  for (const Resampled& number : numbers) out.value += number.value / static_cast<double>(n);
  out.value = of(out.value, minus_from ? minus_from->value : 0);
  std::mt19937_64 random = generator(key_, Use::weigh);
  for (std::size_t b = 0; n > 1 && b < ratio_resamples; ++b) {
    double sum = 0;
    for (std::size_t i = 0; i + 1 < n; ++i) sum += numbers[draw(random, n)].resampled[b];
    out.resampled[b] = of(sum / static_cast<double>(n - 1), minus_from ? minus_from->resampled[b] : 0);
  }
  return {out.value, percentile_interval(out.resampled, static_cast<double>(std::min(documents_, n)) - 1)};
}

Resampled area_under(std::span<const std::int64_t> k, std::span<const Resampled> curve) {
  Resampled area;
  const auto most = static_cast<double>(k.back());
  for (std::size_t i = 0; i < k.size(); ++i) {
    const std::int64_t before = k[i == 0 ? 0 : i - 1], after = k[std::min(i + 1, k.size() - 1)];
    area.add(static_cast<double>(after - before) / (2 * most), curve[i]);
  }
  return area;
}

}  // namespace routescope::analysis
