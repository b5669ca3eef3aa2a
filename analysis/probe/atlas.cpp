#include "analysis/probe/atlas.h"

#include <algorithm>
#include <cmath>

#include "analysis/probe/cuts.h"
#include "analysis/probe/estimates.h"
#include "analysis/probe/share.h"
#include "analysis/routes/prepare.h"
#include "analysis/statistics/documents.h"
#include "analysis/statistics/permutation.h"

namespace routescope::analysis {
namespace {

using Route = std::pair<int, int>;  // (read, column)

// RandomKey::what of what is estimated here, beyond those of ablations (summarize.cpp).
enum What : std::uint64_t { first_order_of_route = 100, truth_of_route = 101, estimate_of_route = 102 };

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// `count` of them, without replacement. The step has no part in it: the rows of a run check the same routes.
std::vector<Route> draw_routes(const std::vector<Route>& routes, std::size_t count, std::uint64_t seed) {
  constexpr std::uint64_t stream = 0x61746c6173;  // of Philox; nothing else draws from it
  const std::vector<std::size_t> order = random_permutation(routes.size(), seed, stream);
  std::vector<Route> drawn;
  for (std::size_t i = 0; i < std::min(routes.size(), count); ++i) drawn.push_back(routes[order[i]]);
  return drawn;
}

/// Of the values that are numbers.
double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty()) return nan;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// What an atlas is made of while it is made.
class AtlasMaker {
 public:
  AtlasMaker(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
             kernels::Communicator& communicator, std::size_t batch_bytes)
      : model_(model),
        tokens_(identity.tokens),
        settings_(identity.settings),
        step_(step),
        communicator_(communicator),
        batch_bytes_(batch_bytes),
        columns_(index(model.plan().num_columns())),
        maskable_(maskable_routes(model.plan())) {}

  Atlas make() {
    estimate();
    choose_checks();
    check();
    compare();
    return std::move(atlas_);
  }

 private:
  std::size_t cell(int read, int column) const { return index(read) * columns_ + index(column); }

  /// Of summed nats of each sequence. Documents are the sample.
  Estimate effect(std::vector<double> sums, What what, std::size_t route) const {
    for (double& sum : sums) sum /= static_cast<double>(tokens_.scored());
    return effect_per_token(sums, what, route);
  }
  /// Of the nats a token of each sequence.
  Estimate effect_per_token(std::span<const double> values, What what, std::size_t route) const {
    return {mean(values), bootstrap_interval(document_values(values, tokens_.documents),
                                             {settings_.seed, static_cast<std::uint64_t>(step_), route, what})};
  }

  void estimate() {
    const double start = seconds_now();
    const auto by_sequence = share_sequences(
        0, tokens_.sequences, "atlas: estimates", communicator_, [&](std::int64_t begin, std::int64_t end) {
          return route_estimates(model_, tokens_, begin, end, settings_.seed, batch_bytes_);
        });
    atlas_.estimate_seconds = seconds_now() - start;
    const std::size_t routes = index(model_.plan().num_routed()) * columns_;
    atlas_.first_order.resize(routes);
    atlas_.estimate.resize(routes);
    for (const auto& [read, column] : maskable_) {
      const std::size_t route = cell(read, column);
      std::vector<double> first_order, estimate;
      for (const std::vector<double>& of_sequence : by_sequence) {
        first_order.push_back(of_sequence[route]);
        estimate.push_back(of_sequence[routes + route]);
      }
      atlas_.first_order[route] = effect(std::move(first_order), first_order_of_route, route);
      atlas_.estimate[route] = effect(std::move(estimate), estimate_of_route, route);
    }
  }

  void choose_checks() {
    const std::size_t count = index(std::max(settings_.atlas_checks, 0));
    std::vector<Route> drawn = draw_routes(maskable_, count, settings_.seed), strongest = maskable_;
    std::stable_sort(strongest.begin(), strongest.end(), [&](const Route& a, const Route& b) {
      return std::abs(atlas_.estimate[cell(a.first, a.second)].value) >
             std::abs(atlas_.estimate[cell(b.first, b.second)].value);
    });
    strongest.resize(std::min(count, strongest.size()));
    std::sort(drawn.begin(), drawn.end());
    for (const auto& [read, column] : drawn) atlas_.checked.push_back({read, column, CheckedBy::random, {}});
    for (const Route& route : strongest) {
      if (!std::binary_search(drawn.begin(), drawn.end(), route))
        atlas_.checked.push_back({route.first, route.second, CheckedBy::strongest, {}});
    }
    std::sort(atlas_.checked.begin(), atlas_.checked.end(), [](const CheckedRoute& a, const CheckedRoute& b) {
      return std::pair(a.read, a.column) < std::pair(b.read, b.column);
    });
  }

  void check() {
    if (atlas_.checked.empty()) return;
    const double start = seconds_now();
    std::vector<Cut> cuts;
    for (const CheckedRoute& route : atlas_.checked) cuts.push_back({Ablation::mask, {{route.read, route.column}}});
    SharedBatches batches(model_, tokens_, batch_bytes_, communicator_);
    const Reference none;
    const auto by_sequence = measure_cuts(batches, {model_, tokens_, none}, cuts, "atlas: true ablations");
    atlas_.check_seconds = seconds_now() - start;
    atlas_.check_passes = passes_of(model_.plan(), cuts);
    for (std::size_t i = 0; i < atlas_.checked.size(); ++i) {
      CheckedRoute& route = atlas_.checked[i];
      std::vector<double> values;
      for (const std::vector<double>& of_sequence : by_sequence) values.push_back(of_sequence[1 + i]);
      route.true_effect = effect_per_token(values, truth_of_route, cell(route.read, route.column));
      route.p = two_sided_p(document_values(values, tokens_.documents));
    }
    std::vector<double> p;
    for (const CheckedRoute& route : atlas_.checked) p.push_back(route.p);
    p = holm_adjust(p);
    for (std::size_t i = 0; i < p.size(); ++i) atlas_.checked[i].p_adjusted = p[i];
  }

  /// The estimates with the truth, over routes drawn at random: those chosen for being strong would flatter them.
  void compare() {
    std::vector<double> estimate, first_order, truth, errors;
    for (const CheckedRoute& route : atlas_.checked) {
      if (route.by != CheckedBy::random) continue;
      const std::size_t at = cell(route.read, route.column);
      estimate.push_back(atlas_.estimate[at].value);
      first_order.push_back(atlas_.first_order[at].value);
      truth.push_back(route.true_effect.value);
      const double error = std::abs(estimate.back() - truth.back());
      errors.push_back(error == 0 ? 0 : error / std::abs(truth.back()));
    }
    atlas_.rank_correlation = rank_correlation(estimate, truth);
    atlas_.first_order_rank_correlation = rank_correlation(first_order, truth);
    atlas_.median_relative_error = median(std::move(errors));
  }

  const model::Model& model_;
  const ProbeTokens& tokens_;
  const ProbeSettings& settings_;
  std::int64_t step_;
  kernels::Communicator& communicator_;
  std::size_t batch_bytes_, columns_;
  std::vector<Route> maskable_;
  Atlas atlas_;
};

}  // namespace

std::vector<Route> maskable_routes(const model::ReadPlan& plan) {
  std::vector<Route> routes;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const std::vector<int>& columns = plan.reads[index(r)].columns;
    if (columns.size() < 2) continue;
    for (int column : columns) routes.emplace_back(r, column);
  }
  return routes;
}

Atlas make_atlas(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
                 kernels::Communicator& communicator, std::size_t batch_bytes) {
  return AtlasMaker(model, identity, step, communicator, batch_bytes).make();
}

}  // namespace routescope::analysis
