#include "analysis/circuits/measure_circuit.h"

#include <algorithm>
#include <numeric>

#include "analysis/circuits/faithfulness.h"
#include "analysis/probe/cuts.h"
#include "analysis/probe/estimates.h"
#include "analysis/probe/intact.h"
#include "analysis/probe/share.h"
#include "analysis/statistics/documents.h"
#include "analysis/statistics/permutation.h"
#include "kernels/comm/launch.h"

namespace routescope::analysis {
namespace {

// RandomKey::what of what is estimated here.
enum What : std::uint64_t { score_of_edge = 200, drop_of_edge = 201, cost_of_all = 202, ratios = 203 };

using Order = std::vector<std::size_t>;           // edges, the first one is kept first
using Kept = std::vector<std::uint8_t>;           // [edge]
using Losses = std::vector<std::vector<double>>;  // [cut][sequence]

/// Every edge once; none of the documents has a part in it.
Order random_order(std::size_t edges, std::uint64_t seed, std::uint64_t number) {
  constexpr std::uint64_t stream = std::uint64_t{0x6f726465} << 16;  // of Philox; nothing else draws from it
  return random_permutation(edges, seed, stream + number);
}

template <class Value>
Order descending(std::size_t edges, const Value& value) {
  Order order(edges);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return value(a) > value(b); });
  return order;
}

class CircuitMaker {
 public:
  CircuitMaker(const model::Model& model, const CircuitIdentity& identity, std::int64_t step,
               kernels::Communicator& communicator, std::size_t batch_bytes)
      : model_(model),
        settings_(identity.settings),
        step_(static_cast<std::uint64_t>(step)),
        communicator_(communicator),
        batch_bytes_(batch_bytes),
        edges_(circuit_edges(model.plan(), identity.settings.ablation)),
        k_(kept_counts(edges_.size())),
        scoring_(half_of(identity, false)),
        held_out_(half_of(identity, true)),
        scoring_batches_(model, scoring_, batch_bytes, communicator),
        held_out_batches_(model, held_out_, batch_bytes, communicator) {
    row_.step = step;
    row_.passes = 0;
  }

  CircuitRow make() {
    const double start = seconds_now();
    reference();
    score();
    choose();
    report();
    row_.seconds = seconds_now() - start;
    return std::move(row_);
  }

 private:
  RandomKey key(What what, std::size_t edge = 0) const { return {settings_.seed, step_, edge, what}; }
  static Estimate estimate_mean(std::span<const double> values, const ProbeTokens& half, const RandomKey& key) {
    return {mean(values),
            bootstrap_interval(document_values(values, half.documents), key, interval_level, ratio_resamples)};
  }
  double share(const ProbeTokens& half) const {
    return static_cast<double>(half.sequences) / static_cast<double>(scoring_.sequences + held_out_.sequences);
  }

  void reference() {
    const Intact intact = measure_intact(model_, scoring_, settings_.ablation == Ablation::mean, scoring_batches_);
    reference_ = intact.reference;
    for (const auto& [read, column] : edges_)
      row_.magnitude.push_back(
          intact.norm_mass.mean[static_cast<std::size_t>(read * model_.plan().num_columns() + column)]);
    row_.passes += share(scoring_);
    row_.plain_seconds = intact.seconds / share(scoring_);
  }

  /// The edges that are not kept are ablated.
  Cut all_but(const Kept& kept) const {
    Cut cut{settings_.ablation, {}};
    for (std::size_t e = 0; e < edges_.size(); ++e)
      if (!kept[e]) cut.routes.push_back({edges_[e].first, edges_[e].second});
    return cut;
  }
  Kept first_of(const Order& order, std::int64_t count) const {
    Kept kept(edges_.size(), 0);
    for (std::int64_t i = 0; i < count; ++i) kept[order[static_cast<std::size_t>(i)]] = 1;
    return kept;
  }

  /// What every cut adds to the nll of the sequences of one half.
  Losses losses(bool held_out, const std::vector<Cut>& cuts) {
    const ProbeTokens& tokens = held_out ? held_out_ : scoring_;
    const auto of_sequence = measure_cuts(held_out ? held_out_batches_ : scoring_batches_,
                                          {model_, tokens, reference_, settings_.seed}, cuts, "circuit");
    row_.passes += share(tokens) * passes_of(model_.plan(), cuts);
    Losses out(cuts.size());
    std::vector<double> nll;
    for (const std::vector<double>& values : of_sequence) {
      nll.push_back(values[0]);
      for (std::size_t i = 0; i < cuts.size(); ++i) out[i].push_back(values[1 + i]);
    }
    if (held_out) row_.nll = mean(nll);
    return out;
  }

  void score() {
    const model::ReadPlan& plan = model_.plan();
    std::vector<Cut> cuts;
    std::vector<std::size_t> really;
    Losses values(edges_.size());
    if (settings_.score == ScoreKind::estimate) values = estimates();
    for (std::size_t e = 0; e < edges_.size(); ++e) {
      // Masking is not estimated for a read's only source.
      const auto read = static_cast<std::size_t>(edges_[e].first);
      if (settings_.score == ScoreKind::estimate && plan.reads[read].columns.size() > 1) continue;
      cuts.push_back({settings_.ablation, {{edges_[e].first, edges_[e].second}}});
      really.push_back(e);
    }
    const Losses measured = losses(false, cuts);
    for (std::size_t i = 0; i < really.size(); ++i) values[really[i]] = measured[i];
    for (std::size_t e = 0; e < edges_.size(); ++e)
      row_.score.push_back(estimate_mean(values[e], scoring_, key(score_of_edge, e)));
    orders_.push_back(descending(edges_.size(), [&](std::size_t e) { return row_.score[e].value; }));
    orders_.push_back(descending(edges_.size(), [&](std::size_t e) { return row_.magnitude[e]; }));
    for (int i = 0; i < settings_.baselines; ++i)
      orders_.push_back(random_order(edges_.size(), settings_.seed, static_cast<std::uint64_t>(i)));
  }

  /// [edge][sequence] nats a token, as the atlas estimates them.
  Losses estimates() {
    const auto of_sequence = share_sequences(
        0, scoring_.sequences, "circuit: estimates", communicator_, [&](std::int64_t begin, std::int64_t end) {
          return route_estimates(model_, scoring_, begin, end, settings_.seed, batch_bytes_);
        });
    const auto columns = model_.plan().num_columns();
    const auto routes = static_cast<std::size_t>(model_.plan().num_routed() * columns);
    Losses out(edges_.size());
    for (std::size_t e = 0; e < edges_.size(); ++e)
      for (const std::vector<double>& one : of_sequence)
        out[e].push_back(one[routes + static_cast<std::size_t>(edges_[e].first * columns + edges_[e].second)] /
                         static_cast<double>(scoring_.scored()));
    // A forward pass, two backward passes of two forward ones each, a sublayer for each edge.
    const auto reads = static_cast<double>(model_.plan().reads.size());
    row_.passes += share(scoring_) * (5 + static_cast<double>(edges_.size()) / reads);
    return out;
  }

  /// On the scoring half: faithfulness where the first k of an order are kept, for each k.
  std::vector<double> scoring_curve(const Order& order, const std::vector<std::int64_t>& k) {
    std::vector<Cut> cuts;
    for (const std::int64_t count : k) cuts.push_back(all_but(first_of(order, count)));
    std::vector<double> out;
    for (const std::vector<double>& loss : losses(false, cuts)) out.push_back(1 - mean(loss) / mean(scoring_none_));
    return out;
  }

  /// The circuit: the first edges of the order by score, as few as reach the faithfulness on the scoring half.
  void choose() {
    row_.kept.assign(edges_.size(), 0);
    scoring_none_ = losses(false, {all_but(row_.kept)}).front();
    if (!(p_above(document_values(scoring_none_, scoring_.documents)) < significance)) {
      row_.scoring_faithfulness.assign(k_.size(), nan);
      return;
    }
    row_.scoring_faithfulness = scoring_curve(orders_[0], k_);
    std::size_t i = 0;
    while (row_.scoring_faithfulness[i] < settings_.faithfulness && i + 1 < k_.size()) ++i;
    std::int64_t count = k_[i];
    if (i > 0 && k_[i] - k_[i - 1] > 1) {  // between two points of the curve
      std::vector<std::int64_t> between;
      for (std::int64_t k = k_[i - 1] + 1; k < k_[i]; ++k) between.push_back(k);
      count = first_to_reach(between, scoring_curve(orders_[0], between), count);
    }
    row_.kept = first_of(orders_[0], count);
    if (settings_.prune) prune();
  }
  std::int64_t first_to_reach(const std::vector<std::int64_t>& k, const std::vector<double>& curve,
                              std::int64_t otherwise) const {
    for (std::size_t i = 0; i < k.size(); ++i)
      if (curve[i] >= settings_.faithfulness) return k[i];
    return otherwise;
  }

  /// Edges that are needed alone need not be needed beside the others: ranks those of the circuit by what dropping each
  /// costs there, and takes as few again, until this makes it no smaller.
  void prune() {
    for (std::size_t before = edges_.size() + 1; row_.size() < before && row_.size() > 1;) {
      before = row_.size();
      std::vector<double> cost(edges_.size(), -std::numeric_limits<double>::infinity());
      const Losses dropped = losses(false, drops());
      std::size_t i = 0;
      for (std::size_t e = 0; e < edges_.size(); ++e)
        if (row_.kept[e]) cost[e] = mean(dropped[i++]);
      const Order order = descending(edges_.size(), [&](std::size_t e) { return cost[e]; });
      std::vector<std::int64_t> k(before - 1);
      std::iota(k.begin(), k.end(), 1);
      row_.kept = first_of(order, first_to_reach(k, scoring_curve(order, k), static_cast<std::int64_t>(before)));
    }
  }
  /// The circuit without each of its edges.
  std::vector<Cut> drops() const {
    std::vector<Cut> cuts;
    for (std::size_t e = 0; e < edges_.size(); ++e) {
      if (!row_.kept[e]) continue;
      Kept kept = row_.kept;
      kept[e] = 0;
      cuts.push_back(all_but(kept));
    }
    return cuts;
  }

  void report() {
    Kept rest;
    for (const std::uint8_t kept : row_.kept) rest.push_back(kept ? 0 : 1);
    std::vector<Cut> cuts{all_but(Kept(edges_.size(), 0)), all_but(row_.kept), all_but(rest)};
    for (Cut& cut : drops()) cuts.push_back(std::move(cut));
    const std::size_t curves = cuts.size();
    for (const Order& order : orders_)  // without the ends, which all orders share
      for (std::size_t i = 1; i + 1 < k_.size(); ++i) cuts.push_back(all_but(first_of(order, k_[i])));
    const Losses all = losses(true, cuts);

    const DocumentRatios ratio(all[0], held_out_.documents, key(ratios));
    row_.none = estimate_mean(all[0], held_out_, key(cost_of_all));
    row_.none_p = ratio.none_p();
    report_curves(ratio, all[0], std::span(all).subspan(curves));
    row_.kept_loss = all[1];
    row_.rest_loss = all[2];
    if (row_.size() > 0) {
      row_.kept_faithfulness = ratio.estimate(ratio.faithfulness(all[1]));
      row_.rest_faithfulness = ratio.estimate(ratio.faithfulness(all[2]));
    }
    report_drops(all[1], std::span(all).subspan(3, curves - 3));
  }

  void report_curves(const DocumentRatios& ratio, const std::vector<double>& none,
                     std::span<const std::vector<double>> inner) {
    std::vector<Resampled> areas;
    auto next = inner.begin();
    for (std::size_t o = 0; o < orders_.size(); ++o) {
      std::vector<Resampled> curve;
      for (std::size_t i = 0; i < k_.size(); ++i) {
        const std::vector<double> whole(none.size(), 0.0);
        const std::vector<double>& loss = i == 0 ? none : i + 1 == k_.size() ? whole : *next++;
        row_.loss.insert(row_.loss.end(), loss.begin(), loss.end());
        curve.push_back(ratio.faithfulness(loss));
        row_.faithfulness.push_back(ratio.estimate(curve.back()));
      }
      areas.push_back(area_under(k_, curve));
      row_.area.push_back(ratio.estimate(areas.back()));
    }
    Resampled above = areas[0];
    row_.above_magnitude = ratio.estimate(above.add(-1, areas[1]));
    const std::span<const Resampled> random = std::span(areas).subspan(2);
    row_.random_area = ratio.mean_of_sample(random);
    row_.above_random = ratio.mean_of_sample(random, &areas[0]);
  }

  void report_drops(const std::vector<double>& circuit, std::span<const std::vector<double>> dropped) {
    const std::size_t sequences = circuit.size();
    row_.drop.assign(edges_.size(), {});
    std::vector<double> p(edges_.size(), nan);
    std::size_t i = 0;
    for (std::size_t e = 0; e < edges_.size(); ++e) {
      std::vector<double> rise(sequences, nan);
      if (row_.kept[e]) {
        for (std::size_t q = 0; q < sequences; ++q) rise[q] = dropped[i][q] - circuit[q];
        ++i;
        row_.drop[e] = estimate_mean(rise, held_out_, key(drop_of_edge, e));
        p[e] = p_above(document_values(rise, held_out_.documents));
      }
      row_.drop_loss.insert(row_.drop_loss.end(), rise.begin(), rise.end());
    }
    row_.drop_p = holm_adjust(p);
    const auto needed =
        std::count_if(row_.drop_p.begin(), row_.drop_p.end(), [](double one) { return one < significance; });
    if (row_.size() > 0) row_.needed = static_cast<double>(needed) / static_cast<double>(row_.size());
  }

  const model::Model& model_;
  const CircuitSettings& settings_;
  std::uint64_t step_;
  kernels::Communicator& communicator_;
  std::size_t batch_bytes_;
  std::vector<Edge> edges_;
  std::vector<std::int64_t> k_;
  ProbeTokens scoring_, held_out_;
  SharedBatches scoring_batches_, held_out_batches_;
  Reference reference_;
  std::vector<double> scoring_none_;  // [sequence]
  std::vector<Order> orders_;         // order_names()
  CircuitRow row_;
};

}  // namespace

CircuitRow measure_circuit(const model::Model& model, const CircuitIdentity& identity, std::int64_t step,
                           kernels::Communicator& communicator, std::size_t batch_bytes) {
  return CircuitMaker(model, identity, step, communicator, batch_bytes).make();
}

CircuitRow measure_circuit(const model::Model& model, const CircuitIdentity& identity, std::int64_t step) {
  return measure_circuit(model, identity, step, *kernels::single_communicator());
}

}  // namespace routescope::analysis
