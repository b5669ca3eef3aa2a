#include "analysis/probe/atlas.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "analysis/probe/measure.h"
#include "analysis/probe/share.h"
#include "analysis/routes/ablation.h"
#include "data/base/error.h"
#include "kernels/random.h"
#include "model/pass/pass.h"

namespace routescope::analysis {
namespace {

using Route = std::pair<int, int>;  // (read, column)
// Of the one backward pass over each sequence, which is little of the work: most of it is ablations.
constexpr model::PassOptions least_memory{.recompute = model::Recompute::attention};

// RandomKey::what of what is estimated here, beyond those of ablations (summarize.cpp).
enum What : std::uint64_t { first_order_of_route = 100, truth_of_route = 101, rank_correlation_of_all = 102 };

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Every route of a read that has others.
std::vector<Route> maskable_routes(const model::ReadPlan& plan) {
  std::vector<Route> routes;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const std::vector<int>& columns = plan.reads[index(r)].columns;
    if (columns.size() < 2) continue;
    for (int column : columns) routes.emplace_back(r, column);
  }
  return routes;
}

/// `count` of them, without replacement, by read. The step has no part in it: the rows of a run check the same routes.
std::vector<Route> draw_routes(std::vector<Route> routes, int count, std::uint64_t seed) {
  constexpr std::uint64_t stream = 0x61746c6173;  // of Philox; nothing else draws from it
  const std::size_t taken = std::min(routes.size(), index(std::max(count, 0)));
  for (std::size_t i = 0; i < taken; ++i) {
    const std::uint64_t word = kernels::random_words(seed, stream, i).word[0];
    std::swap(routes[i], routes[i + ((word * (routes.size() - i)) >> 32)]);
  }
  routes.resize(taken);
  std::sort(routes.begin(), routes.end());
  return routes;
}

/// Sequences of a training pass that fit the budget: as few batches as it allows, as even as they can be.
std::int64_t batch_size(const model::Model& model, std::int64_t positions, std::size_t budget, std::int64_t sequences) {
  const auto bytes = [&](std::int64_t batch) {
    std::size_t sum = 0;
    for (const kernels::Arena::Part& part : model::Pass::plan_memory(model.config(), model.options(), batch, positions,
                                                                     model::Pass::Kind::train, least_memory))
      sum += part.bytes;
    return sum;
  };
  std::int64_t most = sequences;
  while (most > 1 && bytes(most) > budget) most = (most + 1) / 2;
  const std::int64_t batches = (sequences + most - 1) / most;
  return (sequences + batches - 1) / batches;
}

/// [sequence][reads, columns] of sequences [begin, end): -dL/dlogit summed over tokens, L the sequence's summed nll.
std::vector<double> gate_gradients(const model::Model& model, const ProbeTokens& tokens, std::int64_t begin,
                                   std::int64_t end, std::size_t batch_bytes) {
  const model::ReadPlan& plan = model.plan();
  const std::size_t routes = index(plan.num_routed()) * index(plan.num_columns());
  std::vector<double> out(index(end - begin) * routes, 0.0);
  if (begin == end) return out;
  const std::int64_t size = batch_size(model, tokens.positions, batch_bytes, end - begin);
  // The parameters' gradients are by-products; nobody looks at them.
  const kernels::OwnedTensor gradients(model.options().storage, model.options().device, {model.layout().total()});
  std::optional<model::Pass> pass;
  for (std::int64_t first = begin; first < end; first += size) {
    const std::int64_t count = std::min(size, end - first);
    if (!pass || pass->batch() != count) {
      pass.reset();
      pass.emplace(model, count, tokens.positions, model::Pass::Kind::train, least_memory);
    }
    const std::span<const std::int32_t> ids = ids_of(tokens, first, count);
    pass->forward(ids);
    pass->backward(next_tokens(ids, tokens.positions), 1.0, gradients.tensor);
    for (int r = 0; r < plan.num_routed(); ++r) {
      const std::vector<double> dlogit = kernels::host_values<double>(pass->dlogit(r), pass->stream());
      const std::vector<int>& columns = plan.reads[index(r)].columns;
      for (std::size_t i = 0; i < dlogit.size(); ++i) {
        const std::size_t sequence = index(first - begin) + i / columns.size() / index(tokens.positions);
        out[sequence * routes + index(r * plan.num_columns() + columns[i % columns.size()])] -= dlogit[i];
      }
    }
  }
  return out;
}

/// [sequence][checked]: what masking each of `checked` (by read) does to the summed nll.
std::vector<std::vector<double>> true_effects(const model::Model& model, const ProbeTokens& tokens,
                                              const std::vector<Route>& checked, std::size_t batch_bytes,
                                              kernels::Communicator& communicator) {
  const auto body = [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> values) {
    const std::vector<double> intact =
        by_sequence(batch.intact(ids_of(tokens, first, batch.batch())).nll, tokens.positions);
    for (std::vector<double>& of_sequence : values) of_sequence.assign(checked.size(), nan);
    // The deepest first: what precedes the masked read is then intact in the pass that ran before.
    for (std::size_t i = checked.size(); i-- > 0;) {
      const auto [read, column] = checked[i];
      const GatedRoute route{read, column};
      const PreparedAblation mask = prepare_ablation(model, Ablation::mask, {&route, 1}, {}, {});
      const std::vector<double> masked =
          by_sequence(batch.intervened(mask.intervention, read, false).nll, tokens.positions);
      for (std::size_t q = 0; q < values.size(); ++q) values[q][i] = masked[q] - intact[q];
    }
  };
  return SharedBatches(model, tokens, batch_bytes, communicator)
      .measure(0, tokens.sequences, "atlas: true ablations", body);
}

/// Of the values that are numbers.
double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty()) return nan;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// Of first_order and true_effect [check][sequence], over checks, on a resample of sequences.
double resampled_rank_correlation(const std::vector<std::vector<double>>& first_order,
                                  const std::vector<std::vector<double>>& truth,
                                  std::span<const std::size_t> sequences) {
  const auto sums = [&](const std::vector<std::vector<double>>& values) {
    std::vector<double> out;
    for (const std::vector<double>& of_route : values) {
      double sum = 0;
      for (std::size_t q : sequences) sum += of_route[q];
      out.push_back(sum);
    }
    return out;
  };
  return rank_correlation(sums(first_order), sums(truth));
}

}  // namespace

Atlas make_atlas(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
                 kernels::Communicator& communicator, std::size_t batch_bytes) {
  const model::ReadPlan& plan = model.plan();
  const ProbeTokens& tokens = identity.tokens;
  const ProbeSettings& settings = identity.settings;
  const std::size_t columns = index(plan.num_columns()), routes = index(plan.num_routed()) * columns,
                    sequences = index(tokens.sequences);
  const double predicted = static_cast<double>(tokens.positions - 1);
  const auto key = [&](What what, std::size_t route) {
    return RandomKey{settings.seed, static_cast<std::uint64_t>(step), route, what};
  };

  const std::vector<std::vector<double>> gradients = share_sequences(
      0, tokens.sequences, "atlas: gradients", communicator,
      [&](std::int64_t begin, std::int64_t end) { return gate_gradients(model, tokens, begin, end, batch_bytes); });
  const auto effects_of = [&](std::size_t route) {
    std::vector<double> values;
    for (const std::vector<double>& of_sequence : gradients) values.push_back(of_sequence[route] / predicted);
    return values;
  };

  Atlas atlas;
  atlas.first_order.resize(routes);
  const std::vector<Route> maskable = maskable_routes(plan);
  for (const auto& [read, column] : maskable) {
    const std::size_t route = index(read) * columns + index(column);
    const std::vector<double> values = effects_of(route);
    atlas.first_order[route] = {mean(values), bootstrap_interval(values, key(first_order_of_route, route))};
  }

  const std::vector<Route> checked = draw_routes(maskable, settings.atlas_checks, settings.seed);
  std::vector<std::vector<double>> estimates, truth;  // [check][sequence]
  if (!checked.empty()) {
    const auto by_check = true_effects(model, tokens, checked, batch_bytes, communicator);
    for (std::size_t i = 0; i < checked.size(); ++i) {
      std::vector<double>& values = truth.emplace_back();
      for (const std::vector<double>& of_sequence : by_check) values.push_back(of_sequence[i] / predicted);
    }
  }
  std::vector<double> estimated, measured, errors;
  for (std::size_t i = 0; i < checked.size(); ++i) {
    const auto [read, column] = checked[i];
    const std::size_t route = index(read) * columns + index(column);
    estimates.push_back(effects_of(route));
    const Estimate effect{mean(truth[i]), bootstrap_interval(truth[i], key(truth_of_route, route))};
    atlas.checked.push_back({read, column, effect});
    estimated.push_back(atlas.first_order[route].value);
    measured.push_back(effect.value);
    const double error = std::abs(estimated.back() - effect.value);
    errors.push_back(error == 0 ? 0 : error / std::abs(effect.value));
  }
  atlas.median_relative_error = median(std::move(errors));
  std::vector<double> resampled;
  for (int number = 0; !checked.empty() && sequences > 1 && number < bootstrap_resamples; ++number) {
    const auto drawn =
        resample_indices(sequences, sequences - 1, key(rank_correlation_of_all, 0), static_cast<std::uint64_t>(number));
    resampled.push_back(resampled_rank_correlation(estimates, truth, drawn));
  }
  atlas.rank_correlation = {rank_correlation(estimated, measured),
                            percentile_interval(resampled, static_cast<double>(sequences) - 1)};
  return atlas;
}

}  // namespace routescope::analysis
