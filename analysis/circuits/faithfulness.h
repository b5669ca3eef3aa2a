// Faithfulness and areas under its curve, with intervals over documents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// A number, and what it is on every resample of the documents: the same resamples for all numbers of one
/// DocumentRatios, so that differences of numbers have intervals too.
struct Resampled {
  double value = nan;
  std::vector<double> resampled;

  Resampled& add(double weight, const Resampled& other);
};

inline constexpr int ratio_resamples = 2000;

/// f = 1 - (what a cut adds to the nll) / (what ablating everything adds), each summed over sequences: a ratio of
/// means, resampled by documents. NaN where it is not shown, at 5 % one-sided, that ablating everything costs anything.
class DocumentRatios {
 public:
  /// none [sequence]: what ablating everything adds; documents [sequence], empty if each is its own.
  DocumentRatios(std::span<const double> none, std::span<const std::int64_t> documents, const RandomKey& key);

  /// p_above() of `none`, by document.
  double none_p() const { return none_p_; }
  bool shown() const { return none_p_ < significance; }
  std::size_t documents() const { return documents_; }
  /// loss [sequence]: what a cut adds.
  Resampled faithfulness(std::span<const double> loss) const;
  /// Of one such number: percentiles with documents - 1 degrees of freedom (percentile_interval()).
  Estimate estimate(const Resampled& number) const;
  /// Mean over several, which are a random sample as documents are: its interval counts both.
  Estimate mean_of_sample(std::span<const Resampled> numbers, const Resampled* minus_from = nullptr) const;

 private:
  std::vector<double> by_document(std::span<const double> values) const;
  double resampled_sum(std::size_t resample, std::span<const double> sums) const;

  std::vector<std::size_t> of_sequence_;
  std::size_t documents_ = 0;
  RandomKey key_;
  std::vector<double> none_;           // [document] summed
  std::vector<std::uint16_t> counts_;  // [resample, document] how often it was drawn
  double none_p_ = nan;
};

/// The area under a curve over k / most by trapezoids; points k [n] rising, curve [n].
Resampled area_under(std::span<const std::int64_t> k, std::span<const Resampled> curve);

}  // namespace routescope::analysis
