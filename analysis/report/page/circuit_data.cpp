#include "analysis/report/page/circuit_data.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/circuits/circuit_file.h"
#include "analysis/circuits/graph.h"
#include "analysis/circuits/overlap.h"
#include "analysis/report/page/values.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

// What is shown of a measurement, and the limits that all of a page share: steps (40 numbers), and numbers of circuits
// and curves (7 bytes).
constexpr std::size_t most_random_curves = 8;
constexpr std::size_t most_edges = 200;  // of a circuit, those that cost most to drop
constexpr std::size_t most_rows = 400, most_numbers = 60'000;

/// [jaccard, by chance, p]; null where one of two steps has no circuit.
json overlap_data(const Overlap& overlap, double p) {
  if (std::isnan(p)) return nullptr;
  return json::array({json_number(overlap.jaccard), json_number(overlap.by_chance), json_number(p)});
}

/// Of every row with the one before it; p values are Holm's over all of them.
json successive(const std::vector<CircuitRow>& rows) {
  std::vector<Overlap> overlaps(rows.size());
  std::vector<double> p(rows.size(), nan);
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (rows[i].size() == 0 || rows[i - 1].size() == 0) continue;
    overlaps[i] = overlap_of(rows[i - 1].kept, rows[i].kept);
    p[i] = overlaps[i].p;
  }
  p = holm_adjust(p);
  json out = json::array();
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(overlap_data(overlaps[i], p[i]));
  return out;
}

/// Columns of the numbers that every step has.
json steps_data(const std::vector<CircuitRow>& rows, const std::vector<std::size_t>& chosen) {
  json out;
  const json overlaps = successive(rows);
  for (const std::size_t i : chosen) {
    const CircuitRow& row = rows[i];
    out["step"].push_back(row.step);
    out["size"].push_back(row.size());
    out["none_p"].push_back(json_number(row.none_p));
    out["none"].push_back(json_estimate(row.none));
    out["faithfulness"].push_back(json_estimate(row.kept_faithfulness));
    out["rest"].push_back(json_estimate(row.rest_faithfulness));
    out["needed"].push_back(std::isnan(row.needed) ? json()
                                                   : json(std::lround(row.needed * static_cast<double>(row.size()))));
    out["by_score"].push_back(json_estimate(row.area[0]));
    out["by_magnitude"].push_back(json_estimate(row.area[1]));
    out["by_chance"].push_back(json_estimate(row.random_area));
    out["above_magnitude"].push_back(json_estimate(row.above_magnitude));
    out["above_random"].push_back(json_estimate(row.above_random));
    out["passes"].push_back(json_number(row.passes));
    out["before"].push_back(overlaps[i]);
  }
  return out;
}

/// The edges of the circuit, those that cost most to drop first: [edge, drop, p, alone].
json edges_data(const CircuitRow& row) {
  std::vector<std::size_t> order(row.kept.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t e) { return row.kept[e] == 0; });
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(row.drop[a].value) > std::abs(row.drop[b].value);
  });
  order.resize(std::min(order.size(), most_edges));
  json out = json::array();
  for (const std::size_t e : order)
    out.push_back(
        json::array({e, json_estimate(row.drop[e]), json_number(row.drop_p[e]), json_estimate(row.score[e])}));
  return out;
}

json curves_data(const CircuitRow& row) {
  const std::size_t orders = row.area.size(), points = row.faithfulness.size() / orders;
  json out{{"step", row.step}, {"edges", edges_data(row)}, {"random", json::array()}};
  for (std::size_t o = 0; o < std::min(orders, 2 + most_random_curves); ++o) {
    json curve = json::array();
    for (std::size_t i = 0; i < points; ++i) {
      const Estimate& at = row.faithfulness[o * points + i];
      curve.push_back(o < 2 ? json_estimate(at) : json_number(at.value));
    }
    if (o < 2)
      out[o == 0 ? "score" : "magnitude"] = std::move(curve);
    else
      out["random"].push_back(std::move(curve));
  }
  return out;
}

/// What is drawn of a graph: sources by their last member (-1: the embedding), edges by read and source.
json graph_data(const CircuitIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  const std::vector<Edge> edges = circuit_edges(plan, identity.settings.ablation);
  const CircuitGraph graph = graph_of(plan, edges);
  json out{{"sublayers", graph.sublayers}, {"fixed", !graph.head_source.empty()}, {"source", graph.edge_source}};
  for (const GraphSource& source : graph.sources)
    out["sources"].push_back(json::array({source.id, source.members.back()}));
  for (const Edge& edge : edges) {
    out["edges"].push_back(edge_name(plan, edge));
    out["read"].push_back(edge.first);
  }
  out["k"] = kept_counts(edges.size());
  return out;
}

/// Adds the graph to `graphs` unless it is there.
json measurement_data(const RunCircuits& circuits, std::size_t measurements, json& graphs) {
  const CircuitIdentity& identity = circuits.record.identity;
  const std::vector<CircuitRow>& rows = circuits.record.rows;
  const CircuitSettings& settings = identity.settings;
  json graph = graph_data(identity);
  const std::size_t edges = graph.at("edges").size(), points = graph.at("k").size();
  const auto place = std::find(graphs.begin(), graphs.end(), graph) - graphs.begin();
  if (place == std::ssize(graphs)) graphs.push_back(std::move(graph));
  const auto held_out = std::count(identity.held_out.begin(), identity.held_out.end(), std::uint8_t{1});
  json out{{"graph", place},
           {"task", circuits.task.empty() ? json() : json(circuits.task)},
           {"scoring", std::ssize(identity.held_out) - held_out},
           {"held_out", held_out},
           {"ablation", to_string(settings.ablation)},
           {"score", to_string(settings.score)},
           {"asked", settings.faithfulness},
           {"pruned", settings.prune},
           {"baselines", settings.baselines},
           {"detail", json::array()}};
  out["steps"] = steps_data(rows, thinned(rows.size(), std::max<std::size_t>(2, most_rows / measurements)));
  const std::size_t numbers = 8 * std::min(edges, most_edges) + (6 + most_random_curves) * points;
  for (const std::size_t i : thinned(rows.size(), std::max<std::size_t>(2, most_numbers / measurements / numbers)))
    out["detail"].push_back(curves_data(rows[i]));
  return out;
}

struct Member {
  std::size_t run;
  const RunCircuits* circuits;
};

/// Runs with the same task that were measured alike.
std::vector<std::vector<Member>> groups_of(const StudyCircuits& circuits) {
  std::vector<std::vector<Member>> groups;
  for (std::size_t run = 0; run < circuits.size(); ++run) {
    for (const RunCircuits& one : circuits[run]) {
      const auto alike = std::find_if(groups.begin(), groups.end(), [&](const std::vector<Member>& group) {
        const RunCircuits& first = *group.front().circuits;
        return first.task == one.task && difference_of(first.record.identity, one.record.identity).empty();
      });
      if (alike == groups.end())
        groups.push_back({{run, &one}});
      else
        alike->push_back({run, &one});
    }
  }
  std::erase_if(groups, [](const auto& group) { return group.size() < 2; });
  return groups;
}

/// -1: none.
std::int64_t last_common_step(const std::vector<Member>& group) {
  const std::vector<CircuitRow>& rows = group.front().circuits->record.rows;
  const auto found = std::find_if(rows.rbegin(), rows.rend(), [&](const CircuitRow& row) {
    return std::all_of(group.begin(), group.end(),
                       [&](const Member& one) { return one.circuits->record.find(row.step) != nullptr; });
  });
  return found == rows.rend() ? -1 : found->step;
}

json group_data(const std::vector<Member>& group, std::int64_t step) {
  std::vector<std::vector<std::uint8_t>> kept;
  json out{{"step", step}, {"runs", json::array()}, {"without", json::array()}, {"pairs", json::array()}};
  for (const Member& one : group) {
    const CircuitRow& row = *one.circuits->record.find(step);
    out[row.size() > 0 ? "runs" : "without"].push_back(one.run);
    if (row.size() > 0) kept.push_back(row.kept);
  }
  std::vector<Overlap> overlaps;
  std::vector<double> p;
  for (std::size_t a = 0; a < kept.size(); ++a) {
    for (std::size_t b = a + 1; b < kept.size(); ++b) {
      overlaps.push_back(overlap_of(kept[a], kept[b]));
      p.push_back(overlaps.back().p);
    }
  }
  p = holm_adjust(p);
  for (std::size_t i = 0; i < overlaps.size(); ++i) out["pairs"].push_back(overlap_data(overlaps[i], p[i]));
  const Common common = common_edges(kept);
  const CircuitIdentity& identity = group.front().circuits->record.identity;
  const model::ReadPlan plan = identity.plan();
  const std::vector<Edge> edges = circuit_edges(plan, identity.settings.ablation);
  out["common"] = json::array();
  for (const std::size_t e : common.edges) out["common"].push_back(edge_name(plan, edges[e]));
  out["by_chance"] = json_number(common.by_chance);
  out["task"] = group.front().circuits->task.empty() ? json() : json(group.front().circuits->task);
  return out;
}

}  // namespace

json circuits_data(const StudyCircuits& circuits) {
  json out{{"graphs", json::array()}, {"runs", json::array()}, {"common", json::array()}};
  std::size_t measurements = 0;
  for (const std::vector<RunCircuits>& run : circuits) measurements += run.size();
  for (const std::vector<RunCircuits>& run : circuits) {
    json& own = out["runs"].emplace_back(json::array());
    for (const RunCircuits& one : run) own.push_back(measurement_data(one, measurements, out["graphs"]));
  }
  for (const std::vector<Member>& group : groups_of(circuits))
    if (const std::int64_t step = last_common_step(group); step >= 0) out["common"].push_back(group_data(group, step));
  return out;
}

}  // namespace routescope::analysis
