#include "analysis/probe/cuts.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace routescope::analysis {
namespace {

/// The first read that a cut changes; the number of reads where it changes none.
int first_read(const model::ReadPlan& plan, const Cut& cut) {
  const std::vector<int> reads = changed_reads(plan, cut.ablation, cut.routes);
  return reads.empty() ? static_cast<int>(plan.reads.size()) : reads.front();
}

/// (first read, cut), from the one that starts deepest to the one that starts first; those that change nothing not.
std::vector<std::pair<int, std::size_t>> in_order(const model::ReadPlan& plan, std::span<const Cut> cuts) {
  std::vector<std::pair<int, std::size_t>> order;
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    const int first = first_read(plan, cuts[i]);
    if (first < static_cast<int>(plan.reads.size())) order.emplace_back(first, i);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  return order;
}

}  // namespace

std::vector<std::vector<double>> measure_cuts(SharedBatches& batches, const CutContext& context,
                                              std::span<const Cut> cuts, const std::string& what) {
  const model::ReadPlan& plan = context.model.plan();
  for (const Cut& cut : cuts) {
    if (donor_of(cut.ablation) == Donor::text)
      throw std::invalid_argument("measure_cuts: found the ablation " + to_string(cut.ablation));
    expect_room_for_means(plan, context.model.options().device, cut.ablation, what, cut.routes);
  }
  const auto order = in_order(plan, cuts);
  const auto predicted = static_cast<double>(context.tokens.scored());
  const auto body = [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> values) {
    const std::vector<double> intact = by_sequence(batch.intact(context.tokens, first).nll, batch.positions());
    for (std::size_t q = 0; q < intact.size(); ++q) {
      values[q].assign(1 + cuts.size(), 0.0);
      values[q][0] = intact[q] / predicted;
    }
    for (const auto& [from, i] : order) {
      const PreparedAblation cut = prepare_ablation(context.model, cuts[i].ablation, cuts[i].routes, context.reference,
                                                    {.first_sequence = first,
                                                     .sequences = batch.batch(),
                                                     .positions = batch.positions(),
                                                     .seed = context.seed,
                                                     .lengths = batch.lengths()});
      const std::vector<double> changed =
          by_sequence(batch.intervened({&cut.intervention, 1}, from, false).nll, batch.positions());
      for (std::size_t q = 0; q < intact.size(); ++q) values[q][1 + i] = (changed[q] - intact[q]) / predicted;
    }
  };
  return batches.measure(0, context.tokens.sequences, what, body);
}

double passes_of(const model::ReadPlan& plan, std::span<const Cut> cuts) {
  const auto reads = static_cast<double>(plan.reads.size());
  double passes = 1;
  for (const auto& [from, cut] : in_order(plan, cuts)) passes += (reads - from) / reads;
  return passes;
}

}  // namespace routescope::analysis
