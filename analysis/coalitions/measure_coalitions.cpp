#include "analysis/coalitions/measure_coalitions.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "analysis/coalitions/order_sample.h"
#include "analysis/findings/dissociation.h"
#include "analysis/probe/cuts.h"
#include "analysis/probe/intact.h"
#include "analysis/routes/free_mass.h"
#include "analysis/statistics/documents.h"
#include "analysis/statistics/permutation.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;
using Table = std::vector<Values>;  // [item][document]
using Sets = std::vector<std::uint8_t>;

constexpr std::uint64_t order_stream = std::uint64_t{0x636f616c} << 16;  // of Philox; nothing else draws from it

Values combined(const Values& a, double by, const Values& b) {
  Values out(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) out[i] = a[i] + by * b[i];
  return out;
}

/// p value of something: the larger of those of the mean and of the share of documents; 1 without a margin.
double p_nothing(const Values& values, double margin) {
  if (!(margin > 0)) return 1;
  return std::max(equivalence_test(values, margin), p_share_within(values, margin, idle_share));
}

class Measurer {
 public:
  Measurer(const model::Model& model, const ProbeTokens& tokens, const CoalitionSettings& settings,
           kernels::Communicator& communicator, std::size_t batch_bytes)
      : model_(model),
        tokens_(tokens),
        settings_(settings),
        sets_(slice_sets(model.plan())),
        batches_(model, tokens, batch_bytes, communicator) {}

  CoalitionRow make() {
    const double start = seconds_now();
    const Intact intact = measure_intact(model_, tokens_, true, batches_);
    reference_ = intact.reference;
    row_.nll = mean(intact.nll_sequence);
    row_.margin = settings_.margin * std::fmax(std::log(static_cast<double>(model_.config().vocab_size)) - row_.nll, 0);
    const Values mass = set_masses(sets_, intact.alpha.mean, model_.plan().num_columns());
    for (std::size_t s = 0; s < sets_.size(); ++s)
      row_.free_mass.push_back(FreeMass(model_.plan(), Ablation::mean, sets_[s]).of(mass[s]));
    plan_cuts();
    measure();
    describe_alone();
    describe_pairs();
    describe_shares();
    sample_orders();
    row_.seconds = seconds_now() - start;
    return std::move(row_);
  }

 private:
  std::size_t add(const Sets& ablated) {
    const auto [known, is_new] = number_.try_emplace(ablated, cuts_.size());
    if (!is_new) return known->second;
    Cut cut{Ablation::mean, {}};
    for (std::size_t s = 0; s < sets_.size(); ++s)
      if (ablated[s])
        for (const auto& [read, column] : sets_[s].routes) cut.routes.push_back({read, column});
    std::sort(cut.routes.begin(), cut.routes.end(), [](const GatedRoute& a, const GatedRoute& b) {
      return std::pair(a.read, a.column) < std::pair(b.read, b.column);
    });
    cuts_.push_back(std::move(cut));
    return cuts_.size() - 1;
  }
  template <class Is>
  std::size_t add_where(const Is& is_ablated) {
    Sets ablated(sets_.size());
    for (std::size_t s = 0; s < sets_.size(); ++s) ablated[s] = is_ablated(s);
    return add(ablated);
  }

  void plan_cuts() {
    const std::size_t n = sets_.size();
    all_ = add_where([](std::size_t) { return true; });
    for (std::size_t s = 0; s < n; ++s) alone_.push_back(add_where([&](std::size_t t) { return t == s; }));
    for (std::size_t s = 0; s < n; ++s) kept_.push_back(add_where([&](std::size_t t) { return t != s; }));
    for (const auto& [a, b] : pairs_of(n))
      pairs_.push_back(add_where([a = a, b = b](std::size_t t) { return t == a || t == b; }));
    for (Coalition present = 0; present < Coalition{1} << num_players; ++present)
      game_.push_back(add_where([&](std::size_t t) { return (present >> player_of(t) & 1) == 0; }));
  }

  /// Pairs of orders up to this many, and their cuts.
  void add_orders(int pairs) {
    const std::size_t n = sets_.size(), first = orders_.size();
    for (int i = static_cast<int>(first / 2); i < pairs; ++i) {
      orders_.push_back(random_permutation(n, settings_.seed, order_stream + static_cast<std::uint64_t>(i)));
      orders_.push_back({orders_.back().rbegin(), orders_.back().rend()});
    }
    for (std::size_t i = first; i < orders_.size(); ++i) {
      std::vector<std::size_t>& along = along_.emplace_back();
      Sets ablated(n, 1);
      along.push_back(all_);
      for (const std::size_t joins : orders_[i]) {
        ablated[joins] = 0;
        along.push_back(add(ablated));
      }
    }
  }

  /// The cuts that are new. Losses by sequence of these.
  Table measure_new() {
    const std::vector<Cut> cuts(cuts_.begin() + std::ssize(losses_), cuts_.end());
    const auto of_sequence = measure_cuts(batches_, {model_, tokens_, reference_, settings_.seed}, cuts, "coalitions");
    row_.passes += passes_of(model_.plan(), cuts);
    Table by_sequence;
    for (std::size_t c = 0; c < cuts.size(); ++c) {
      Values& values = by_sequence.emplace_back();
      for (const Values& one : of_sequence) values.push_back(one[1 + c]);
      losses_.push_back(document_values(values, tokens_.documents));
    }
    return by_sequence;
  }

  /// One set of cuts is measured at once, because they share what precedes them: without early looks all of them.
  void measure() {
    row_.passes = 1;
    const std::vector<int> looks = order_looks(settings_.permutations, settings_.until_width > 0);
    if (looks.size() == 1) add_orders(looks.front());
    const Table by_sequence = measure_new();
    const auto flat = [&](const std::vector<std::size_t>& cuts) {
      Values out;
      for (std::size_t c : cuts) out.insert(out.end(), by_sequence[c].begin(), by_sequence[c].end());
      return out;
    };
    row_.alone_loss = flat(alone_);
    row_.kept_loss = flat(kept_);
    row_.pair_loss = flat(pairs_);
    row_.coalition_loss = flat(game_);
  }

  Estimate estimate(const Values& values, std::uint64_t what, std::size_t item) const {
    constexpr std::uint64_t first = 400;  // RandomKey::what
    return {mean(values), bootstrap_interval(values, {settings_.seed, 0, item, first + what})};
  }
  Table of(const std::vector<std::size_t>& cuts) const {
    Table out;
    for (std::size_t c : cuts) out.push_back(losses_[c]);
    return out;
  }
  bool changes(std::size_t s) const { return !changed_reads(model_.plan(), Ablation::mean, whole(sets_[s])).empty(); }

  void describe_alone() {
    row_.all = estimate(losses_[all_], 0, 0);
    row_.all_p = p_above(losses_[all_]);
    for (std::size_t s = 0; s < sets_.size(); ++s)
      row_.alone.push_back(changes(s) ? estimate(losses_[alone_[s]], 1, s) : Estimate{});
  }

  void describe_pairs() {
    const Table alone = of(alone_), both = of(pairs_);
    std::size_t pair = 0;
    for (const auto& [a, b] : pairs_of(sets_.size())) {
      const bool tested = changes(a) && changes(b);
      const Values beyond = combined(combined(both[pair], -1, alone[a]), -1, alone[b]);
      row_.pair.push_back(tested ? estimate(beyond, 2, pair) : Estimate{});
      row_.pair_p.push_back(tested ? two_sided_p(beyond, row_.margin) : nan);
      ++pair;
    }
    row_.pair_p = holm_adjust(row_.pair_p);
    std::vector<std::size_t> asked;
    for (std::size_t s = 0; s < sets_.size(); ++s)
      if (row_.free_mass[s] >= appreciable_mass && changes(s)) asked.push_back(s);
    Company company = in_company(asked, alone, both, row_.margin);
    row_.in_company = std::move(company.verdict);
    row_.partner = std::move(company.partner);
  }

  /// Shares of what ablating everything costs, where that is shown to cost anything; and Shapley values.
  void describe_shares() {
    const bool costs = row_.all_p < significance;
    const auto share = [&](std::size_t cut) {
      return costs ? ratio_of_means(combined(losses_[all_], -1, losses_[cut]), losses_[all_]) : Estimate{};
    };
    for (std::size_t s = 0; s < sets_.size(); ++s)
      row_.sufficiency.push_back(changes(s) ? share(kept_[s]) : Estimate{});
    for (std::size_t player = 0; player < num_players; ++player)
      row_.player_sufficiency.push_back(share(game_[Coalition{1} << player]));
    Table of_player(num_players);
    for (std::size_t d = 0; d < losses_[all_].size(); ++d) {
      Values v;
      for (std::size_t c : game_) v.push_back(-losses_[c][d]);
      const Values own = shapley_values(v);
      for (std::size_t player = 0; player < num_players; ++player) of_player[player].push_back(own[player]);
    }
    for (std::size_t player = 0; player < num_players; ++player)
      row_.shapley.push_back(estimate(of_player[player], 3, player));
  }

  void sample_orders() {
    row_.slice_shapley.resize(sets_.size());
    OrderSample sample(sets_.size());
    const std::vector<int> looks = order_looks(settings_.permutations, settings_.until_width > 0);
    for (const int pairs : looks) {
      add_orders(pairs);
      if (losses_.size() < cuts_.size()) measure_new();
      add_gains(sample);
      row_.slice_shapley = at_look(sample, static_cast<std::size_t>(pairs), looks.size());
      row_.orders = 2 * pairs;
      if (narrow(row_.slice_shapley, settings_.until_width * row_.all.value)) return;
    }
  }

  /// What the pairs of orders say that the sample lacks.
  void add_gains(OrderSample& sample) const {
    for (std::size_t pair = sample.front().size(); pair < orders_.size() / 2; ++pair) {
      for (Table& slice : sample) slice.emplace_back(losses_[all_].size(), 0.0);
      for (const std::size_t i : {2 * pair, 2 * pair + 1}) {
        for (std::size_t d = 0; d < losses_[all_].size(); ++d) {
          Values along;
          for (std::size_t c : along_[i]) along.push_back(-losses_[c][d]);
          const Values own = marginals(orders_[i], along);
          for (std::size_t s = 0; s < own.size(); ++s) sample[s][pair][d] += own[s] / 2;
        }
      }
    }
  }

  const model::Model& model_;
  const ProbeTokens& tokens_;
  const CoalitionSettings& settings_;
  std::vector<RouteSet> sets_;
  SharedBatches batches_;
  Reference reference_;
  std::vector<Cut> cuts_;
  std::map<Sets, std::size_t> number_;  // of each cut
  std::size_t all_ = 0;
  std::vector<std::size_t> alone_, kept_, pairs_, game_;  // cuts
  std::vector<std::vector<std::size_t>> orders_, along_;  // [order]
  Table losses_;                                          // [cut]
  CoalitionRow row_;
};

}  // namespace

std::string to_string(InCompany verdict) {
  constexpr const char* names[] = {"none", "idle", "redundant", "undecided"};
  return names[static_cast<std::size_t>(verdict)];
}

Company in_company(const std::vector<std::size_t>& asked, const std::vector<std::vector<double>>& alone,
                   const std::vector<std::vector<double>>& pairs, double margin) {
  Company out{std::vector<InCompany>(alone.size(), InCompany::none), std::vector<int>(alone.size(), -1)};
  const auto order = pairs_of(alone.size());
  Values nothing, idle, redundant;
  std::vector<int> partners;
  for (const std::size_t s : asked) {
    nothing.push_back(p_nothing(alone[s], margin));
    idle.push_back(nothing.back());
    Values above;
    int partner = -1;
    double most = margin;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto [a, b] = order[i];
      if (a != s && b != s) continue;
      const std::size_t t = a == s ? b : a;
      const Values beside = combined(pairs[i], -1, alone[t]);
      idle.back() = std::max(idle.back(), p_nothing(beside, margin));
      above.push_back(p_above(beside, margin));
      if (mean(beside) > most) {
        most = mean(beside);
        partner = static_cast<int>(t);
      }
    }
    above = holm_adjust(above);
    redundant.push_back(std::max(nothing.back(), above.empty() ? 1.0 : *std::min_element(above.begin(), above.end())));
    partners.push_back(partner);
  }
  nothing = holm_adjust(nothing);
  idle = holm_adjust(idle);
  redundant = holm_adjust(redundant);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!(nothing[i] < significance)) continue;
    out.verdict[asked[i]] = idle[i] < significance        ? InCompany::idle
                            : redundant[i] < significance ? InCompany::redundant
                                                          : InCompany::undecided;
    if (out.verdict[asked[i]] == InCompany::redundant) out.partner[asked[i]] = partners[i];
  }
  return out;
}

CoalitionRow measure_coalitions(const model::Model& model, const ProbeTokens& tokens, const CoalitionSettings& settings,
                                kernels::Communicator& communicator, std::size_t batch_bytes) {
  expect_reads(model.plan());
  return Measurer(model, tokens, settings, communicator, batch_bytes).make();
}

}  // namespace routescope::analysis
