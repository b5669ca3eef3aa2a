#include "analysis/findings/resampled.h"

#include <algorithm>
#include <cmath>

namespace routescope::analysis {
namespace {

// Sets the chance of findings apart from that of a probe's own intervals, which count `what` from zero.
constexpr std::uint64_t of_findings = std::uint64_t{1} << 32;

bool has_nan(std::span<const double> values) {
  return std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
}

/// How often each resample draws each sequence: [sequence][resample].
class Draws {
 public:
  Draws(std::size_t sequences, std::size_t resamples, const RandomKey& key)
      : resamples_(resamples), counts_(sequences * resamples), sums_(resamples), weights_(resamples) {
    // All at once, since to start a generator costs more than to draw from it.
    const std::size_t draws = sequences - 1;
    const std::vector<std::size_t> indices = resample_indices(sequences, draws * resamples, key, 0);
    for (std::size_t i = 0; i < indices.size(); ++i) counts_[indices[i] * resamples + i / draws] += 1;
  }

  /// Adds weight[b] times the mean of resample b to `out`. With `skip_nan` a mean over the other values, and NaN where
  /// a resample draws none.
  void add_means(std::span<const double> values, bool skip_nan, std::span<const double> weight, std::span<double> out) {
    if (!skip_nan && has_nan(values)) return std::fill(out.begin(), out.end(), nan);
    sums_.assign(resamples_, 0.0);
    weights_.assign(resamples_, 0.0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) continue;
      const double* counts = counts_.data() + i * resamples_;
      for (std::size_t b = 0; b < resamples_; ++b) {
        sums_[b] += counts[b] * values[i];
        weights_[b] += counts[b];
      }
    }
    for (std::size_t b = 0; b < resamples_; ++b) out[b] += weight[b] * (sums_[b] / weights_[b]);  // 0 / 0 is NaN
  }

 private:
  std::size_t resamples_;
  std::vector<double> counts_, sums_, weights_;
};

double mean_of(std::span<const double> values, bool skip_nan) {
  double sum = 0, count = 0;
  for (double value : values) {
    if (skip_nan && std::isnan(value)) continue;
    sum += value;
    count += 1;
  }
  return sum / count;
}

}  // namespace

ResampledCurves::ResampledCurves(std::size_t rows, std::size_t sets, std::size_t resamples)
    : sets_(sets), resamples_(resamples), values_(rows * sets, 0.0), resampled_(rows * sets * resamples, 0.0) {}

Curves make_curves(std::span<const Rows> runs, std::size_t sets, std::size_t sequences, std::uint64_t seed,
                   int resamples, bool until_decided) {
  const auto draws_wanted = static_cast<std::size_t>(resamples);
  Curves curves;
  curves.rows = runs.front().size();
  curves.sets = sets;
  curves.sequences = sequences;
  curves.resamples = draws_wanted;
  curves.runs = runs.size();
  curves.until_decided = until_decided;
  curves.used.assign(curves.rows * sets, sequences);
  for (auto* each : {&curves.effect, &curves.control, &curves.excess, &curves.mass})
    *each = ResampledCurves(curves.rows, sets, draws_wanted);

  const RandomKey key{seed, 0, 0, of_findings};
  Draws draws(sequences, draws_wanted, key);
  std::vector<std::vector<double>> weights(runs.size(), std::vector<double>(draws_wanted));
  for (std::size_t b = 0; b < draws_wanted; ++b) {
    const std::vector<double> of_runs = run_weights(runs.size(), key, b);
    for (std::size_t run = 0; run < runs.size(); ++run) weights[run][b] = of_runs[run];
  }

  const std::vector<double> missing(sequences, nan);
  std::vector<double> difference(sequences);
  for (std::size_t run = 0; run < runs.size(); ++run) {
    for (std::size_t row = 0; row < curves.rows; ++row) {
      const ProbeRow& measured = *runs[run][row];
      for (std::size_t set = 0; set < sets; ++set) {
        const SetEffect& of_set = measured.ablations.front().sets[set];
        const std::span<const double> effect = of_set.delta_nll_sequence, mass(measured.mass_sequence),
                                      control = of_set.control.delta_nll_sequence.empty()
                                                    ? missing
                                                    : of_set.control.delta_nll_sequence;
        for (std::size_t i = 0; i < sequences; ++i) difference[i] = effect[i] - control[i];
        const auto add = [&](ResampledCurves& to, std::span<const double> values) {
          to.value(row, set) += mean_of(values, until_decided) / static_cast<double>(runs.size());
          draws.add_means(values, until_decided, weights[run], to.resampled(row, set));
        };
        const auto missing_effects =
            std::count_if(effect.begin(), effect.end(), [](double value) { return std::isnan(value); });
        std::size_t& used = curves.used[row * sets + set];
        used = std::min(used, sequences - static_cast<std::size_t>(missing_effects));
        add(curves.effect, effect);
        add(curves.control, control);
        add(curves.excess, difference);
        add(curves.mass, mass.subspan(set * sequences, sequences));
      }
    }
  }
  return curves;
}

}  // namespace routescope::analysis
