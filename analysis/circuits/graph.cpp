#include "analysis/circuits/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

namespace routescope::analysis {
namespace {

using json = nlohmann::ordered_json;

constexpr const char* embedding = "embedding";

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// [read] what its partial is the sum of.
std::vector<std::vector<int>> members_of(const model::ReadPlan& plan) {
  std::vector<std::vector<int>> out{{-1}};
  for (int r = 1; r < std::ssize(plan.reads); ++r) {
    std::vector<int> members = plan.reads[index(r)].continues ? out.back() : std::vector<int>{};
    members.push_back(r - 1);
    out.push_back(std::move(members));
  }
  return out;
}

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}

/// Every node and edge with its attributes, whatever the format.
void each_part(const CircuitRow& row, const CircuitIdentity& identity, const std::function<void(json)>& node,
               const std::function<void(json)>& edge) {
  const model::ReadPlan plan = identity.plan();
  const std::vector<Edge> edges = circuit_edges(plan, identity.settings.ablation);
  const CircuitGraph graph = graph_of(plan, edges);
  node({{"id", embedding}, {"kind", embedding}, {"layer", -1}});
  for (std::size_t r = 0; r < graph.sublayers.size(); ++r) {
    const model::Read& read = plan.reads[r];
    const bool head = r + 1 == graph.sublayers.size();
    node({{"id", graph.sublayers[r]},
          {"kind", head ? "head" : model::to_string(read.sublayer)},
          {"layer", head ? plan.num_layers : read.layer}});
  }
  const auto id_of = [&](int member) { return member < 0 ? embedding : graph.sublayers[index(member)]; };
  for (const GraphSource& source : graph.sources) {
    if (source.id == embedding) continue;
    node({{"id", source.id},
          {"kind", "source"},
          {"layer", plan.reads[index(std::max(0, source.members.back()))].layer}});
    for (const int member : source.members)
      edge({{"source", id_of(member)}, {"target", source.id}, {"kind", "member"}});
  }
  for (std::size_t e = 0; e < edges.size(); ++e) {
    edge({{"source", graph.sources[graph.edge_source[e]].id},
          {"target", graph.sublayers[index(edges[e].first)]},
          {"kind", "route"},
          {"name", edge_name(plan, edges[e])},
          {"kept", row.kept[e] != 0},
          {"score", number(row.score[e].value)},
          {"score_lower", number(row.score[e].ci.lower)},
          {"score_upper", number(row.score[e].ci.upper)},
          {"drop", number(row.drop[e].value)},
          {"drop_lower", number(row.drop[e].ci.lower)},
          {"drop_upper", number(row.drop[e].ci.upper)},
          {"drop_p", number(row.drop_p[e])},
          {"magnitude", number(row.magnitude[e])}});
  }
  if (!graph.head_source.empty())
    edge({{"source", graph.head_source}, {"target", graph.sublayers.back()}, {"kind", "fixed"}});
}

json facts_of(const CircuitRow& row, const CircuitIdentity& identity) {
  return {{"step", row.step},
          {"model_sha256", row.model_sha256},
          {"settings", to_json(identity.settings)},
          {"nll", number(row.nll)},
          {"none", number(row.none.value)},
          {"size", row.size()},
          {"faithfulness", number(row.kept_faithfulness.value)},
          {"faithfulness_lower", number(row.kept_faithfulness.ci.lower)},
          {"faithfulness_upper", number(row.kept_faithfulness.ci.upper)},
          {"rest_faithfulness", number(row.rest_faithfulness.value)}};
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

/// GraphML declares every attribute before it is used.
class GraphMl {
 public:
  /// The attributes of `values` but `skip`, as <data> of a graph, node or edge.
  std::string data(const std::string& of, const json& values, const std::vector<std::string>& skip = {}) {
    std::string out;
    for (const auto& [name, value] : values.items()) {
      if (value.is_null() || std::find(skip.begin(), skip.end(), name) != skip.end()) continue;
      const char* type = value.is_string()           ? "string"
                         : value.is_boolean()        ? "boolean"
                         : value.is_number_integer() ? "long"
                                                     : "double";
      const std::string key = of + "_" + name;
      if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
        known_.push_back(key);
        keys_ += fmt::format("  <key id=\"{}\" for=\"{}\" attr.name=\"{}\" attr.type=\"{}\"/>\n", key, of, name, type);
      }
      out += fmt::format("<data key=\"{}\">{}</data>", key,
                         escaped(value.is_string() ? value.get<std::string>() : value.dump()));
    }
    return out;
  }
  const std::string& keys() const { return keys_; }

 private:
  std::vector<std::string> known_;
  std::string keys_;
};

}  // namespace

CircuitGraph graph_of(const model::ReadPlan& plan, const std::vector<Edge>& edges) {
  CircuitGraph graph;
  const auto members = members_of(plan);
  for (std::size_t r = 0; r < plan.reads.size(); ++r)
    graph.sublayers.push_back(r + 1 == plan.reads.size() ? "head" : plan.reads[r].name);
  const auto source = [&](const std::string& id, int partial) {
    const auto found =
        std::find_if(graph.sources.begin(), graph.sources.end(), [&](const auto& one) { return one.id == id; });
    if (found != graph.sources.end()) return index(found - graph.sources.begin());
    graph.sources.push_back({id, members[index(partial)]});
    return graph.sources.size() - 1;
  };
  const auto current = [&](const model::Read& read) { return "current@" + read.name; };
  for (const auto& [r, column] : edges) {
    const model::Read& read = plan.reads[index(r)];
    const auto at = index(std::find(read.columns.begin(), read.columns.end(), column) - read.columns.begin());
    const std::string& name = plan.columns[index(column)];
    const bool is_current = plan.family(column) == model::Family::current;
    graph.edge_source.push_back(
        source(is_current ? current(read) : name, at < read.sources.size() ? read.sources[at] : r));
  }
  const model::Read& last = plan.reads.back();
  if (!last.routed) {
    graph.head_source = current(last);
    source(graph.head_source, static_cast<int>(plan.reads.size()) - 1);
  }
  return graph;
}

std::string circuit_json(const CircuitRow& row, const CircuitIdentity& identity) {
  json out{{"directed", true},
           {"multigraph", false},
           {"graph", facts_of(row, identity)},
           {"nodes", json::array()},
           {"edges", json::array()}};
  each_part(
      row, identity, [&](json node) { out["nodes"].push_back(std::move(node)); },
      [&](json edge) { out["edges"].push_back(std::move(edge)); });
  return out.dump(1) + "\n";
}

std::string circuit_graphml(const CircuitRow& row, const CircuitIdentity& identity) {
  GraphMl out;
  std::string body = "    " + out.data("graph", facts_of(row, identity)) + "\n";
  std::string links;
  each_part(
      row, identity,
      [&](const json& node) {
        body += fmt::format("    <node id=\"{}\">{}</node>\n", escaped(node["id"].get<std::string>()),
                            out.data("node", node, {"id"}));
      },
      [&](const json& edge) {
        links +=
            fmt::format("    <edge source=\"{}\" target=\"{}\">{}</edge>\n", escaped(edge["source"].get<std::string>()),
                        escaped(edge["target"].get<std::string>()), out.data("edge", edge, {"source", "target"}));
      });
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n" +
         out.keys() + "  <graph edgedefault=\"directed\">\n" + body + links + "  </graph>\n</graphml>\n";
}

}  // namespace routescope::analysis
