#include "analysis/report/page/coalition_data.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/report/page/values.h"
#include "analysis/report/wording.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

json estimates(const std::vector<Estimate>& all) {
  json out = json::array();
  for (const Estimate& one : all) out.push_back(json_estimate(one));
  return out;
}

json row_data(const CoalitionRow& row) {
  json verdicts = json::array();
  for (InCompany one : row.in_company) verdicts.push_back(to_string(one));
  return {{"step", row.step},
          {"all", json_estimate(row.all)},
          {"costs", row.all_p < significance},
          {"margin", json_number(row.margin)},
          {"mass", json_numbers(row.free_mass)},
          {"alone", estimates(row.alone)},
          {"kept", estimates(row.sufficiency)},
          {"slice_shapley", estimates(row.slice_shapley)},
          {"verdict", verdicts},
          {"partner", row.partner},
          {"shapley", estimates(row.shapley)},
          {"player_kept", estimates(row.player_sufficiency)},
          {"pair", estimates(row.pair)},
          {"pair_p", json_numbers(row.pair_p)}};
}

/// How many slices of all runs have each verdict, and a sentence for each.
struct Counted {
  std::size_t idle = 0, redundant = 0, undecided = 0;
  std::vector<std::string> evidence = {};

  std::size_t all() const { return idle + redundant + undecided; }

  void add(const CoalitionRow& row, const std::string& of_run) {
    std::vector<std::string> open;
    for (std::size_t s = 0; s < num_slices; ++s) {
      const std::string slice = set_text(slice_name(s));
      if (row.in_company[s] == InCompany::idle) {
        ++idle;
        evidence.push_back(
            fmt::format("{}{} is idle: it is shown to do nothing, alone or beside any other slice.", of_run, slice));
      }
      if (row.in_company[s] == InCompany::redundant) {
        ++redundant;
        evidence.push_back(
            fmt::format("{}{} is redundant: it does nothing alone, and more than the margin where {} is "
                        "ablated too.",
                        of_run, slice, set_text(slice_name(static_cast<std::size_t>(row.partner[s])))));
      }
      if (row.in_company[s] == InCompany::undecided) open.push_back(slice);
    }
    undecided += open.size();
    if (!open.empty())
      evidence.push_back(fmt::format("{}Nothing alone, and not decided in company: {}.", of_run, list_text(open)));
  }
};

}  // namespace

json coalitions_data(const std::vector<RunCoalitions>& coalitions, std::size_t most_rows) {
  json out = json::array(), slices = json::array(), players = json::array();
  for (std::size_t s = 0; s < num_slices; ++s) slices.push_back(set_text(slice_name(s)));
  for (std::size_t player = 0; player < num_players; ++player) players.push_back(player_name(player));
  for (const RunCoalitions& one : coalitions) {
    json rows = json::array();
    for (std::size_t i : thinned(one.record.rows.size(), most_rows)) rows.push_back(row_data(one.record.rows[i]));
    out.push_back({{"task", one.task.empty() ? json() : json(one.task)},
                   {"sequences", one.record.identity.tokens.sequences},
                   {"slices", slices},
                   {"players", players},
                   {"rows", rows}});
  }
  return out;
}

std::optional<Claim> company_claim(const Study& study, const StudyCoalitions& coalitions) {
  Counted counted;
  std::size_t runs = 0;
  for (std::size_t r = 0; r < std::min(coalitions.size(), study.pooled_runs()); ++r) {
    for (const RunCoalitions& one : coalitions[r]) {
      if (!one.task.empty() || one.record.rows.empty()) continue;
      ++runs;
      counted.add(one.record.rows.back(), study.runs.size() > 1 ? study.runs[r].name + ": " : "");
    }
  }
  if (runs == 0) return std::nullopt;
  Claim out{"What has mass and no effect of its own is idle: nothing depends on it. (Not a claim of the paper.)",
            "Nothing to judge: no slice with mass is shown to do nothing alone"};
  const std::size_t all = counted.all(), decided = counted.idle + counted.redundant;
  if (all > 0) out.verdict = fmt::format("Not decided for any of {} such slice{}", all, all == 1 ? "" : "s");
  if (decided > 0) {
    out.tone = counted.redundant == 0 ? (counted.idle == all ? "yes" : "part") : counted.idle == 0 ? "no" : "part";
    out.verdict = fmt::format("Of {} such slice{} {} {} idle and {} redundant", all, all == 1 ? "" : "s", counted.idle,
                              counted.idle == 1 ? "is" : "are", counted.redundant);
  }
  out.evidence = std::move(counted.evidence);
  return out;
}

}  // namespace routescope::analysis
