#include "analysis/probe/cuts.h"

#include <algorithm>
#include <stdexcept>

namespace routescope::analysis {
namespace {

/// The first read that a cut changes; the number of reads where it changes none.
int first_read(const model::ReadPlan& plan, const Cut& cut) {
  const std::vector<int> reads = changed_reads(plan, cut.ablation, cut.routes);
  return reads.empty() ? static_cast<int>(plan.reads.size()) : reads.front();
}

}  // namespace

std::vector<std::vector<double>> measure_cuts(SharedBatches& batches, const CutContext& context,
                                              std::span<const Cut> cuts, const std::string& what) {
  const model::ReadPlan& plan = context.model.plan();
  std::vector<std::pair<int, std::size_t>> order;  // (first read, cut)
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (cuts[i].ablation == Ablation::patch) throw std::invalid_argument("measure_cuts: found an ablation patch");
    expect_room_for_means(plan, context.model.options().device, cuts[i].ablation, what, cuts[i].routes);
    order.emplace_back(first_read(plan, cuts[i]), i);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto predicted = static_cast<double>(context.tokens.positions - 1);
  return batches.measure(0, context.tokens.sequences, what,
                         [&](BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> values) {
                           const std::vector<double> intact = by_sequence(
                               batch.intact(ids_of(context.tokens, first, batch.batch())).nll, batch.positions());
                           for (std::size_t q = 0; q < intact.size(); ++q) {
                             values[q].assign(1 + cuts.size(), 0.0);
                             values[q][0] = intact[q] / predicted;
                           }
                           for (const auto& [from, i] : order) {
                             if (from == static_cast<int>(plan.reads.size())) {
                               put(1 + i, intact.nll);
                               continue;
                             }
                             const PreparedAblation cut =
                                 prepare_ablation(context.model, cuts[i].ablation, cuts[i].routes, context.reference,
                                                  {first, batch.batch(), batch.positions(), context.seed, {}, 0});
                             const std::vector<double> changed = by_sequence(
                                 batch.intervened({&cut.intervention, 1}, from, false).nll, batch.positions());
                             for (std::size_t q = 0; q < intact.size(); ++q)
                               values[q][1 + i] = (changed[q] - intact[q]) / predicted;
                           }
                         });
}

double passes_of(const model::ReadPlan& plan, std::span<const Cut> cuts) {
  const auto reads = static_cast<double>(plan.reads.size());
  double passes = 1;
  for (const Cut& cut : cuts) passes += (reads - first_read(plan, cut)) / reads;
  return passes;
}

}  // namespace routescope::analysis
