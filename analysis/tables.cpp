#include "analysis/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace routescope {
namespace {

constexpr std::size_t emergence_columns = 4;

std::string number(const char* format, double value) {
  return std::isnan(value) ? "-" : fmt::format(fmt::runtime(format), value);
}

std::string effect(const AblationEffects& effects, std::size_t slice) {
  if (std::isnan(effects.delta_nll[slice])) return "-";
  if (std::isnan(effects.ci_lower[slice])) return fmt::format("{:+.4f}", effects.delta_nll[slice]);
  return fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", effects.delta_nll[slice], effects.ci_lower[slice],
                     effects.ci_upper[slice]);
}

}  // namespace

std::string slice_name(std::size_t slice) {
  constexpr const char *families[] = {"embedding", "history", "current"}, *sublayers[] = {"attn", "mlp"},
                       *depths[] = {"early", "mid", "late"};
  return fmt::format("{}.{}.{}", families[slice / 6], sublayers[slice / 3 % 2], depths[slice % 3]);
}

std::string slice_table(const ProbeRow& row, const ProbeIdentity& identity) {
  std::string out =
      fmt::format("step {}: intact nll {:.4f} nats/token, {} sequences of {} tokens ({})\n", row.step, row.intact_nll,
                  identity.tokens.sequences, identity.tokens.positions, identity.tokens.origin);
  out += fmt::format("{:<21} {:>6}  {:<28} {:>7} {:>8} {:>7} {:>8}\n", "slice", "mass", "delta nll [95 %], nats/token",
                     "p adj.", "kl", "top-1", "coverage");
  for (std::size_t s = 0; s < num_slices; ++s) {
    out +=
        fmt::format("{:<21} {:>6}  {:<28} {:>7} {:>8} {:>7} {:>8}\n", slice_name(s), number("{:.4f}", row.mass[s]),
                    effect(row.effects(Ablation::mask), s), number("{:.4f}", row.effects(Ablation::mask).p_adjusted[s]),
                    number("{:.4f}", row.effects(Ablation::mask).kl[s]),
                    number("{:.4f}", row.effects(Ablation::mask).top1_agreement[s]),
                    number("{:.2f}", row.effects(Ablation::mask).coverage[s]));
  }
  return out;
}

std::string emergence_table(const AnalysisRecord& record) {
  std::vector<double> strongest(num_slices, -1.0);
  for (const ProbeRow& row : record.rows) {
    for (std::size_t s = 0; s < num_slices; ++s) {
      if (!std::isnan(row.effects(Ablation::mask).delta_nll[s]))
        strongest[s] = std::max(strongest[s], std::abs(row.effects(Ablation::mask).delta_nll[s]));
    }
  }
  std::vector<std::size_t> order(num_slices);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return strongest[a] > strongest[b]; });
  order.resize(emergence_columns);

  std::string out = fmt::format("delta nll [95 %], nats/token, of masking the {} strongest slices\n{:>8} {:>8}",
                                emergence_columns, "step", "nll");
  for (std::size_t s : order) out += fmt::format("  {:<28}", slice_name(s));
  while (out.back() == ' ') out.pop_back();
  for (const ProbeRow& row : record.rows) {
    out += fmt::format("\n{:>8} {:>8.4f}", row.step, row.intact_nll);
    for (std::size_t s : order) out += fmt::format("  {:<28}", effect(row.effects(Ablation::mask), s));
    while (out.back() == ' ') out.pop_back();
  }
  return out + "\n";
}

}  // namespace routescope
