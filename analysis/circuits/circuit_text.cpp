#include "analysis/circuits/circuit_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/circuits/overlap.h"

namespace routescope::analysis {
namespace {

constexpr std::size_t most_edges_shown = 12;

std::string number(double value, int places) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, places);
}

std::string with_interval(const Estimate& estimate, int places) {
  if (std::isnan(estimate.value)) return "-";
  if (std::isnan(estimate.ci.lower)) return number(estimate.value, places);
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", estimate.value, places, estimate.ci.lower, places, estimate.ci.upper,
                     places);
}

std::string edges_table(const CircuitRow& row, const CircuitIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  const std::vector<Edge> edges = circuit_edges(plan, identity.settings.ablation);
  std::vector<std::size_t> order(edges.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](std::size_t e) { return row.kept[e] == 0; });
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return row.drop[a].value > row.drop[b].value; });
  std::string out = fmt::format("  {:<20} {:<28} {:<28} {:>8}\n", "edge of the circuit",
                                identity.tokens.is_task() ? "alone [95 %], nats" : "alone [95 %], nats/tok",
                                "dropped from the circuit", "p");
  for (std::size_t i = 0; i < std::min(order.size(), most_edges_shown); ++i) {
    const std::size_t e = order[i];
    out += fmt::format("  {:<20} {:<28} {:<28} {:>8}\n", edge_name(plan, edges[e]), with_interval(row.score[e], 4),
                       with_interval(row.drop[e], 4), row.drop_p[e] < 1e-4 ? "<0.0001" : number(row.drop_p[e], 4));
  }
  if (order.size() > most_edges_shown) out += fmt::format("  and {} more\n", order.size() - most_edges_shown);
  return out;
}

std::string areas_text(const CircuitRow& row, const CircuitIdentity& identity) {
  std::string out =
      fmt::format("  area           {} by score, {} by magnitude (difference {})\n", with_interval(row.area[0], 3),
                  with_interval(row.area[1], 3), with_interval(row.above_magnitude, 3));
  if (identity.settings.baselines == 0) return out;
  const auto [least, greatest] = std::minmax_element(row.area.begin() + 2, row.area.end(),
                                                     [](const auto& a, const auto& b) { return a.value < b.value; });
  return out + fmt::format("                 {} in {} random orders, {} to {} (difference {})\n",
                           with_interval(row.random_area, 3), identity.settings.baselines, number(least->value, 3),
                           number(greatest->value, 3), with_interval(row.above_random, 3));
}

}  // namespace

std::string circuit_text(const CircuitRow& row, const CircuitIdentity& identity) {
  const CircuitSettings& settings = identity.settings;
  const auto held_out = std::count(identity.held_out.begin(), identity.held_out.end(), std::uint8_t{1});
  std::string out = fmt::format(
      "step {}: circuit of edges under {}, scores {}: {} {} score, {} others report\n"
      "  nll {:.4f}; without any edge {} more\n",
      row.step, to_string(settings.ablation), to_string(settings.score), std::ssize(identity.held_out) - held_out,
      identity.tokens.is_task() ? "prompts" : "sequences", held_out, row.nll, with_interval(row.none, 4));
  if (std::isnan(row.faithfulness.front().value)) {
    out += fmt::format("  not shown that this costs anything (p = {}): no faithfulness\n", number(row.none_p, 4));
  } else if (row.size() == 0) {
    out += "  the scoring half does not show that this costs anything: no circuit\n";
  } else {
    out += fmt::format(
        "  circuit        {} of {} edges{}, chosen for a faithfulness of {} on the scoring half\n"
        "  faithfulness   {}\n"
        "  completeness   {} without the circuit\n"
        "  minimality     {:.0f} of {} edges are shown to be needed\n",
        row.size(), row.kept.size(), settings.prune ? ", pruned" : "", settings.faithfulness,
        with_interval(row.kept_faithfulness, 3), with_interval(row.rest_faithfulness, 3),
        row.needed * static_cast<double>(row.size()), row.size());
  }
  if (!std::isnan(row.area.front().value)) out += areas_text(row, identity);
  if (row.size() > 0) out += edges_table(row, identity);
  return out + fmt::format("  cost           {:.1f} plain evaluations, {:.1f} s\n", row.passes, row.seconds);
}

std::string circuits_table(const CircuitRecord& record) {
  std::string out = fmt::format("{:>8} {:>6} {:<22} {:<22} {:>7} {:>6} {:>6} {:>6} {:>9} {:>7}\n", "step", "edges",
                                "faithfulness [95 %]", "without the circuit", "needed", "area", "magn.", "random",
                                "as last", "chance");
  for (const CircuitRow& row : record.rows) {
    const Overlap overlap = overlap_of(row.kept, record.rows.back().kept);
    const bool any = row.size() > 0;
    out += fmt::format("{:>8} {:>6} {:<22} {:<22} {:>7} {:>6} {:>6} {:>6} {:>9} {:>7}\n", row.step,
                       any ? std::to_string(row.size()) : "-", with_interval(row.kept_faithfulness, 2),
                       with_interval(row.rest_faithfulness, 2), number(row.needed, 2), number(row.area[0].value, 3),
                       number(row.area[1].value, 3), number(row.random_area.value, 3),
                       number(any ? overlap.jaccard : nan, 2), number(any ? overlap.by_chance : nan, 2));
  }
  return out +
         "as last: edges shared with the circuit of the last step, of those in either (Jaccard); chance: of random "
         "circuits of these sizes\n";
}

}  // namespace routescope::analysis
