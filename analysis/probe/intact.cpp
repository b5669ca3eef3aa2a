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

/// [sequence, source] of alpha [tokens, sources].
std::vector<Spread> spreads(const std::vector<double>& alpha, std::size_t sources, std::size_t positions) {
  std::vector<Spread> out(alpha.size() / positions);
  for (std::size_t sequence = 0; sequence < out.size() / sources; ++sequence) {
    for (std::size_t i = 0; i < sources; ++i) {
      const double* first = &alpha[sequence * positions * sources + i];
      Spread& spread = out[sequence * sources + i];
      double shifted = 0;  // from the first token's, so that weights that do not vary have no variance at all
      for (std::size_t t = 0; t < positions; ++t) {
        const double deviation = first[t * sources] - *first;
        spread.sum += first[t * sources];
        shifted += deviation;
        spread.squares += deviation * deviation;
      }
      spread.squares -= shifted * shifted / static_cast<double>(positions);
    }
  }
  return out;
}

}  // namespace

// NOLINTNEXTLINE(readability-function-size): writes and reads the numbers of a sequence, whose layout stands here alone
Intact measure_intact(const model::Model& model, const ProbeTokens& tokens, bool source_means, SharedBatches& batches) {
  const model::ReadPlan& plan = model.plan();
  const std::size_t positions = index(tokens.positions), columns = plan.columns.size(),
                    alphas = index(plan.num_routed()) * columns, d = index(model.config().hidden_size);
  const bool closed_form = has_closed_form(model);
  Intact out;
  const auto values = batches.measure(
      0, tokens.sequences, "probe of the intact model",
      [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> of_sequence) {
        const double start = seconds_now();
        const PassValues pass = batch.intact(ids_of(tokens, first, batch.batch()));
        out.seconds += seconds_now() - start;
        const std::vector<double> nll = by_sequence(pass.nll, tokens.positions);
        // nll, sums and squares of alpha, distance from the closed form, sums of sources
        for (std::size_t i = 0; i < nll.size(); ++i) {
          of_sequence[i].push_back(nll[i]);
          of_sequence[i].resize(2 + 2 * alphas + (source_means ? plan.reads.size() * d : 0), 0.0);
        }
        for (int r = 0; r < plan.num_routed(); ++r) {
          const std::vector<int>& of_read = plan.reads[index(r)].columns;
          const std::vector<double> alpha = batch.alpha(r);
          const std::vector<Spread> spread = spreads(alpha, of_read.size(), positions);
          for (std::size_t i = 0; i < spread.size(); ++i) {
            double* at = of_sequence[i / of_read.size()].data() + 1 + index(r) * columns;
            at[of_read[i % of_read.size()]] = spread[i].sum;
            at[alphas + index(of_read[i % of_read.size()])] = spread[i].squares;
          }
          const std::size_t weights = positions * of_read.size();
          for (std::size_t i = 0; closed_form && i < of_sequence.size(); ++i) {
            double& error = of_sequence[i][1 + 2 * alphas];
            error = std::max(error, closed_form_error(model, r, std::span(alpha).subspan(i * weights, weights)));
          }
        }
        if (!source_means) return;
        for (std::size_t r = 0; r < plan.reads.size(); ++r) {
          const std::vector<double> partial = batch.partial(static_cast<int>(r));
          for (std::size_t i = 0; i < partial.size(); ++i)
            of_sequence[i / d / positions][2 + 2 * alphas + r * d + i % d] += partial[i];
        }
      });

  const double per_sequence = static_cast<double>(positions);
  std::vector<double> mean(alphas, 0.0), squares(alphas, 0.0), total(alphas, 0.0), sources(plan.reads.size() * d, 0.0);
  double seen = 0;
  for (const std::vector<double>& one : values) {
    out.nll_sequence.push_back(one[0] / (per_sequence - 1));
    for (std::size_t a = 0; a < alphas; ++a) {  // Chan, Golub & LeVeque 1979
      const double away = one[1 + a] / per_sequence - mean[a];
      mean[a] += away * per_sequence / (seen + per_sequence);
      squares[a] += one[1 + alphas + a] + away * away * seen * per_sequence / (seen + per_sequence);
      total[a] += one[1 + a];
      out.alpha_sequence.push_back(one[1 + a] / per_sequence);
    }
    for (std::size_t i = 0; source_means && i < sources.size(); ++i) sources[i] += one[2 + 2 * alphas + i];
    if (closed_form) out.closed_form_error = std::fmax(out.closed_form_error, one[1 + 2 * alphas]);
    seen += per_sequence;
  }
  out.reference.alpha_mean.assign(alphas, nan);
  out.alpha_variance.assign(alphas, nan);
  for (int r = 0; r < plan.num_routed(); ++r) {
    for (int column : plan.reads[index(r)].columns) {
      const std::size_t a = index(r) * columns + index(column);
      out.reference.alpha_mean[a] = total[a] / seen;
      out.alpha_variance[a] = squares[a] / seen;
    }
  }
  for (std::size_t r = 0; source_means && r < plan.reads.size(); ++r) {
    std::vector<double>& of_read = out.reference.source_mean.emplace_back();
    for (std::size_t i = 0; i < d; ++i) of_read.push_back(sources[r * d + i] / seen);
  }
  return out;
}

}  // namespace routescope::analysis
