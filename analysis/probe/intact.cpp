#include "analysis/probe/intact.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/probe/closed_form.h"

namespace routescope::analysis {
namespace {

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// A read's weight on one source over the tokens of a sequence.
struct Spread {
  double sum = 0, squares = 0;  // squares: of the deviations from the sequence's mean
};

/// [sequence, source] of alpha [tokens, sources] over the first `length(sequence)` of a sequence's positions.
template <class Length>
std::vector<Spread> spreads(const std::vector<double>& alpha, std::size_t sources, std::size_t positions,
                            const Length& length) {
  std::vector<Spread> out(alpha.size() / positions);
  for (std::size_t sequence = 0; sequence < out.size() / sources; ++sequence) {
    for (std::size_t i = 0; i < sources; ++i) {
      const double* first = &alpha[sequence * positions * sources + i];
      Spread& spread = out[sequence * sources + i];
      double shifted = 0;  // from the first token's, so that weights that do not vary have no variance at all
      for (std::size_t t = 0; t < length(sequence); ++t) {
        const double deviation = first[t * sources] - *first;
        spread.sum += first[t * sources];
        shifted += deviation;
        spread.squares += deviation * deviation;
      }
      spread.squares -= shifted * shifted / static_cast<double>(length(sequence));
    }
  }
  return out;
}

/// sums [reads, columns] over `count`; NaN for a column that a read lacks.
std::vector<double> of_routes(const model::ReadPlan& plan, std::span<const double> sums, double count) {
  std::vector<double> out(sums.size(), nan);
  for (int r = 0; r < plan.num_routed(); ++r) {
    for (int column : plan.reads[index(r)].columns) {
      const std::size_t at = index(r * plan.num_columns() + column);
      out[at] = sums[at] / count;
    }
  }
  return out;
}

/// The sums of one more sequence; the mean is a sum until the last.
void add_sequence(RouteMasses& masses, std::span<const double> sums, double length) {
  masses.mean.resize(sums.size(), 0.0);
  for (std::size_t a = 0; a < sums.size(); ++a) {
    masses.mean[a] += sums[a];
    masses.sequence.push_back(sums[a] / length);
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-function-size): writes and reads the numbers of a sequence, whose layout stands here alone
Intact measure_intact(const model::Model& model, const ProbeTokens& tokens, bool source_means, SharedBatches& batches) {
  const model::ReadPlan& plan = model.plan();
  const std::size_t positions = index(tokens.positions), columns = plan.columns.size(),
                    alphas = index(plan.num_routed()) * columns, d = index(model.config().hidden_size);
  const bool closed_form = has_closed_form(model);
  constexpr std::size_t kinds = 4;  // of numbers of each route: sums and squares of alpha, contribution, norm mass
  const std::size_t error_at = 1 + kinds * alphas, metrics_at = error_at + 1, sources_at = metrics_at + num_metrics;
  Intact out;
  const auto values = batches.measure(
      0, tokens.sequences, "probe of the intact model",
      [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> of_sequence) {
        const double start = seconds_now();
        const PassValues pass = batch.intact(tokens, first);
        out.seconds += seconds_now() - start;
        const std::vector<double> nll = by_sequence(pass.nll, tokens.positions);
        const auto length = [&](std::size_t sequence) { return index(tokens.length(first + std::int64_t(sequence))); };
        // nll, the numbers of each route, distance from the closed form, metrics, sums of sources
        for (std::size_t i = 0; i < nll.size(); ++i) {
          of_sequence[i].push_back(nll[i]);
          of_sequence[i].resize(sources_at + (source_means ? plan.reads.size() * d : 0), 0.0);
          if (tokens.is_task()) std::copy_n(pass.answers[i].begin(), num_metrics, &of_sequence[i][metrics_at]);
        }
        for (int r = 0; r < plan.num_routed(); ++r) {
          const std::vector<int>& of_read = plan.reads[index(r)].columns;
          const std::vector<double> alpha = batch.alpha(r);
          const std::vector<Spread> spread = spreads(alpha, of_read.size(), positions, length);
          const std::vector<double> contributions = batch.contributions(r);
          for (std::size_t i = 0; i < spread.size(); ++i) {
            const std::size_t sequence = i / of_read.size(), source = i % of_read.size();
            double* at = of_sequence[sequence].data() + 1 + index(r) * columns + index(of_read[source]);
            at[0] = spread[i].sum;
            at[alphas] = spread[i].squares;
            at[2 * alphas] = contributions[2 * sequence * of_read.size() + source];
            at[3 * alphas] = contributions[(2 * sequence + 1) * of_read.size() + source];
          }
          const std::size_t weights = positions * of_read.size();
          for (std::size_t i = 0; closed_form && i < of_sequence.size(); ++i) {
            double& error = of_sequence[i][error_at];
            error = std::max(error, closed_form_error(model, r, std::span(alpha).subspan(i * weights, weights)));
          }
        }
        if (!source_means) return;
        for (std::size_t r = 0; r < plan.reads.size(); ++r) {
          const std::vector<double> partial = batch.partial(static_cast<int>(r));
          for (std::size_t i = 0; i < partial.size(); ++i) {
            const std::size_t sequence = i / d / positions;
            if (i / d % positions < length(sequence)) of_sequence[sequence][sources_at + r * d + i % d] += partial[i];
          }
        }
      });

  std::vector<double> mean(alphas, 0.0), squares(alphas, 0.0), sources(plan.reads.size() * d, 0.0);
  double seen = 0;
  for (const std::vector<double>& one : values) {
    const auto per_sequence = static_cast<double>(tokens.length(std::ssize(out.nll_sequence)));
    out.nll_sequence.push_back(one[0] / static_cast<double>(tokens.scored()));
    if (tokens.is_task()) std::copy_n(&one[metrics_at], num_metrics, out.answers.emplace_back().begin());
    for (std::size_t a = 0; a < alphas; ++a) {  // Chan, Golub & LeVeque 1979
      const double away = one[1 + a] / per_sequence - mean[a];
      mean[a] += away * per_sequence / (seen + per_sequence);
      squares[a] += one[1 + alphas + a] + away * away * seen * per_sequence / (seen + per_sequence);
    }
    add_sequence(out.alpha, std::span(one).subspan(1, alphas), per_sequence);
    add_sequence(out.contribution, std::span(one).subspan(1 + 2 * alphas, alphas), per_sequence);
    add_sequence(out.norm_mass, std::span(one).subspan(1 + 3 * alphas, alphas), per_sequence);
    for (std::size_t i = 0; source_means && i < sources.size(); ++i) sources[i] += one[sources_at + i];
    if (closed_form) out.closed_form_error = std::fmax(out.closed_form_error, one[error_at]);
    seen += per_sequence;
  }
  for (RouteMasses* masses : {&out.alpha, &out.contribution, &out.norm_mass})
    masses->mean = of_routes(plan, masses->mean, seen);
  out.reference.alpha_mean = out.alpha.mean;
  out.reference.contribution_mean = out.contribution.mean;
  out.alpha_variance = of_routes(plan, squares, seen);
  for (std::size_t r = 0; source_means && r < plan.reads.size(); ++r) {
    std::vector<double>& of_read = out.reference.source_mean.emplace_back();
    for (std::size_t i = 0; i < d; ++i) of_read.push_back(sources[r * d + i] / seen);
  }
  return out;
}

}  // namespace routescope::analysis
