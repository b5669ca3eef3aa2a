#include "analysis/findings/resampled.h"

#include <algorithm>
#include <cmath>

#include "analysis/statistics/documents.h"
#include "analysis/statistics/random.h"

namespace routescope::analysis {
namespace {

// Sets the chance of findings apart from that of a probe's own intervals, which count `what` from zero.
constexpr std::uint64_t of_findings = std::uint64_t{1} << 32;

bool has_nan(std::span<const double> values) {
  return std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
}

/// How often each resample draws each document: [document][resample].
class Draws {
 public:
  Draws(std::vector<std::size_t> places, std::size_t documents, std::size_t resamples, const RandomKey& key)
      : places_(std::move(places)),
        resamples_(resamples),
        counts_(documents * resamples),
        sums_(resamples),
        weights_(resamples) {
    // D - 1 draws of D documents: their means spread as the mean of the documents does.
    const std::size_t draws = std::max<std::size_t>(documents - 1, 1);
    const std::vector<std::size_t> indices = resample_indices(documents, draws * resamples, key, 0);
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
      const double* counts = counts_.data() + places_[i] * resamples_;
      for (std::size_t b = 0; b < resamples_; ++b) {
        sums_[b] += counts[b] * values[i];
        weights_[b] += counts[b];
      }
    }
    for (std::size_t b = 0; b < resamples_; ++b) out[b] += weight[b] * (sums_[b] / weights_[b]);  // 0 / 0 is NaN
  }

 private:
  std::vector<std::size_t> places_;
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

/// effect - control of each sequence.
std::vector<double> excess_of(const SetEffect& effect, const ControlEffect& control) {
  std::vector<double> out(effect.delta_nll_sequence.size(), nan);
  if (control.delta_nll_sequence.empty()) return out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = effect.delta_nll_sequence[i] - control.delta_nll_sequence[i];
  return out;
}

}  // namespace

ResampledCurves::ResampledCurves(std::size_t rows, std::size_t sets, std::size_t resamples)
    : sets_(sets), resamples_(resamples), values_(rows * sets, 0.0), resampled_(rows * sets * resamples, 0.0) {}

Curves make_curves(std::span<const Rows> runs, std::size_t sets, std::size_t sequences,
                   std::span<const std::int64_t> documents, std::uint64_t seed, int resamples, bool until_decided) {
  const auto wanted = static_cast<std::size_t>(resamples);
  const std::size_t units =
      documents.empty() ? sequences : static_cast<std::size_t>(count_documents(documents.first(sequences)));
  Curves curves;
  curves.rows = runs.front().size();
  curves.sets = sets;
  curves.resamples = wanted;
  curves.until_decided = until_decided;
  curves.freedom = static_cast<double>(runs.size() > 1 ? std::min(runs.size(), units) : units) - 1;
  for (auto* each : {&curves.effect, &curves.control, &curves.excess, &curves.contribution_excess, &curves.mass,
                     &curves.contribution})
    *each = ResampledCurves(curves.rows, sets, wanted);

  const RandomKey key{seed, 0, 0, of_findings};
  Draws draws(document_numbers(documents, sequences), units, wanted, key);
  std::vector<std::vector<double>> weights(runs.size(), std::vector<double>(wanted));
  for (std::size_t b = 0; b < wanted; ++b) {
    const std::vector<double> of_runs = run_weights(runs.size(), key, b);
    for (std::size_t run = 0; run < runs.size(); ++run) weights[run][b] = of_runs[run];
  }

  const double share = 1 / static_cast<double>(runs.size());
  for (std::size_t set = 0; set < sets; ++set) {
    for (std::size_t run = 0; run < runs.size(); ++run) {
      for (std::size_t row = 0; row < curves.rows; ++row) {
        const ProbeRow& measured = *runs[run][row];
        const SetEffect& of_set = measured.ablations.front().sets[set];
        const auto add = [&](ResampledCurves& to, std::span<const double> values) {
          to.value(row, set) += mean_of(values, until_decided) * share;
          draws.add_means(values, until_decided, weights[run], to.resampled(row, set));
        };
        const std::vector<double> missing(sequences, nan);
        const auto of_sequences = [&](const std::vector<double>& values) {
          return values.empty() ? std::span<const double>(missing)
                                : std::span<const double>(values).subspan(set * sequences, sequences);
        };
        add(curves.effect, of_set.delta_nll_sequence);
        add(curves.control, of_set.control.delta_nll_sequence.empty() ? missing : of_set.control.delta_nll_sequence);
        add(curves.excess, excess_of(of_set, of_set.control));
        add(curves.contribution_excess, excess_of(of_set, of_set.contribution_control));
        add(curves.mass, of_sequences(measured.mass_sequence));
        add(curves.contribution, of_sequences(measured.contribution_sequence));
      }
    }
  }
  return curves;
}

}  // namespace routescope::analysis
