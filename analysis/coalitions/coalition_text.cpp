#include "analysis/coalitions/coalition_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "analysis/routes/ablation.h"

namespace routescope::analysis {
namespace {

using json = nlohmann::ordered_json;

std::string with_interval(const Estimate& estimate, int places) {
  if (std::isnan(estimate.value)) return "-";
  if (std::isnan(estimate.ci.lower)) return fmt::format("{:+.{}f}", estimate.value, places);
  return fmt::format("{:+.{}f} [{:+.{}f}, {:+.{}f}]", estimate.value, places, estimate.ci.lower, places,
                     estimate.ci.upper, places);
}

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}
json number(const Estimate& one) {
  return {{"value", number(one.value)}, {"lower", number(one.ci.lower)}, {"upper", number(one.ci.upper)}};
}
template <class T>
json list(const std::vector<T>& values) {
  json out = json::array();
  for (const T& one : values) out.push_back(number(one));
  return out;
}

std::string pairs_text(const CoalitionRow& row) {
  const auto pairs = pairs_of(num_slices);
  std::vector<std::size_t> shown;
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (row.pair_p[i] < significance) shown.push_back(i);
  std::stable_sort(shown.begin(), shown.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(row.pair[a].value) > std::abs(row.pair[b].value);
  });
  std::string out = fmt::format("  pairs of slices with an interaction beyond the margin: {}\n",
                                shown.empty() ? "none is shown" : std::to_string(shown.size()));
  for (std::size_t i = 0; i < std::min<std::size_t>(shown.size(), 8); ++i) {
    const auto [a, b] = pairs[shown[i]];
    out +=
        fmt::format("    {:<21} {:<21} {:<28} {}\n", slice_name(a), slice_name(b), with_interval(row.pair[shown[i]], 4),
                    row.pair[shown[i]].value > 0 ? "they cover for each other" : "either breaks what both do");
  }
  return out;
}

}  // namespace

std::string coalition_text(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step) {
  std::string out = fmt::format(
      "step {}: coalitions of slices under mean, {} sequences of {} tokens\n  nll {:.4f}; without any slice {} more; "
      "margin {:.4f} nats/token\n  {:<21} {:>9} {:<28} {:<28} {}\n",
      step, tokens.sequences, tokens.positions, row.nll, with_interval(row.all, 4), row.margin, "slice", "free mass",
      "alone [95 %], nats/tok", "Shapley value", "kept alone, % of all");
  for (std::size_t s = 0; s < num_slices; ++s) {
    const Estimate& shapley = row.slice_shapley[s];
    const Estimate& kept = row.sufficiency[s];
    out += fmt::format("  {:<21} {:>9.4f} {:<28} {:<28} {}\n", slice_name(s), row.free_mass[s],
                       with_interval(row.alone[s], 4), with_interval(shapley, 4),
                       std::isnan(kept.value) ? "-" : fmt::format("{:.0f}", 100 * kept.value));
  }
  out += fmt::format("  {:<21} {:>9} {:<28} {:<28} {}\n", "player", "", "", "Shapley value, exact",
                     "kept alone, % of all");
  for (std::size_t player = 0; player < num_players; ++player) {
    const Estimate& kept = row.player_sufficiency[player];
    out += fmt::format("  {:<21} {:>9} {:<28} {:<28} {}\n", player_name(player), "", "",
                       with_interval(row.shapley[player], 4),
                       std::isnan(kept.value) ? "-" : fmt::format("{:.0f}", 100 * kept.value));
  }
  out += pairs_text(row);
  for (std::size_t s = 0; s < num_slices; ++s) {
    if (row.in_company[s] == InCompany::idle)
      out += fmt::format("  idle: {} does nothing, alone or beside any other slice\n", slice_name(s));
    if (row.in_company[s] == InCompany::redundant)
      out += fmt::format("  redundant: {} does nothing alone, and more than the margin beside {}\n", slice_name(s),
                         slice_name(static_cast<std::size_t>(row.partner[s])));
    if (row.in_company[s] == InCompany::undecided)
      out += fmt::format("  undecided: {} does nothing alone; in company it is not known\n", slice_name(s));
  }
  return out + fmt::format("  cost {:.1f} plain evaluations ({} orders{})", row.passes, row.orders,
                           row.orders < 2 * settings.permutations
                               ? fmt::format(" of at most {}", 2 * settings.permutations)
                               : "");
}

std::vector<std::pair<std::string, std::string>> coalition_estimand() {
  return {{"intervention", describe(Ablation::mean) + "; of the routes of slices, those of the final read stay"},
          {"metric", "nll of the ablated minus nll of the intact model, mean over the predicted tokens of a sequence"},
          {"interval",
           "95 % over documents: BCa bootstrap; of shares Fieller's; of slice_shapley over documents and orders, at "
           "all looks at them together"}};
}

std::string coalition_json(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step, const std::string& model_sha256) {
  json slices = json::array(), players = json::array(), pairs = json::array(), verdicts = json::array(),
       partners = json::array();
  for (std::size_t s = 0; s < num_slices; ++s) {
    slices.push_back(slice_name(s));
    verdicts.push_back(to_string(row.in_company[s]));
    partners.push_back(row.partner[s] < 0 ? json() : json(slice_name(static_cast<std::size_t>(row.partner[s]))));
  }
  for (std::size_t player = 0; player < num_players; ++player) players.push_back(player_name(player));
  for (const auto& [a, b] : pairs_of(num_slices)) pairs.push_back({slice_name(a), slice_name(b)});
  const auto estimand = coalition_estimand();
  return json{{"filetype", "routescope coalitions"},
              {"version", {1, 0}},
              {"step", step},
              {"model_sha256", model_sha256},
              {"input_distribution",
               fmt::format("{}: {} sequences of {} tokens", tokens.origin, tokens.sequences, tokens.positions)},
              {estimand[0].first, estimand[0].second},
              {estimand[1].first, estimand[1].second},
              {"unit", "nat/token"},
              {"n", tokens.sequences},
              {"seed", settings.seed},
              {estimand[2].first, estimand[2].second},
              {"nll", number(row.nll)},
              {"margin", number(row.margin)},
              {"all", number(row.all)},
              {"all_p", number(row.all_p)},
              {"slice", slices},
              {"free_mass", list(row.free_mass)},
              {"alone", list(row.alone)},
              {"sufficiency", list(row.sufficiency)},
              {"slice_shapley", list(row.slice_shapley)},
              {"in_company", verdicts},
              {"partner", partners},
              {"player", players},
              {"shapley", list(row.shapley)},
              {"player_sufficiency", list(row.player_sufficiency)},
              {"pair", pairs},
              {"interaction", list(row.pair)},
              {"interaction_p", list(row.pair_p)},
              {"permutations", row.orders},
              {"passes", number(row.passes)}}
             .dump(1) +
         "\n";
}

}  // namespace routescope::analysis
