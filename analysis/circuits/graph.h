// The graph of a circuit: for drawings, and for programs that read graphs.
#pragma once

#include <string>
#include <vector>

#include "analysis/circuits/circuit.h"

namespace routescope::analysis {

/// What a source is made of. Sublayers are counted by the read that feeds them; -1 is the embedding.
struct GraphSource {
  std::string id;            // of a completed source its column; of a current one "current@2.mlp"
  std::vector<int> members;  // ascending
};
struct CircuitGraph {
  std::vector<std::string> sublayers;    // [read of the plan] "0.attn", ..., the last one "head"
  std::vector<GraphSource> sources;      // each once, in the order of the reads that see them first
  std::vector<std::size_t> edge_source;  // [edge] index of its source
  /// Where the last read is not routed: the source that it takes whole; else empty.
  std::string head_source;
};
CircuitGraph graph_of(const model::ReadPlan& plan, const std::vector<Edge>& edges);

/// Node-link JSON, which networkx reads (node_link_graph, edges="edges") and D3 nearly. Nodes: the embedding, sources,
/// sublayers, the head. Edges: routes (source to sublayer, with what is known of each) and members (sublayer to the
/// source that it is part of).
std::string circuit_json(const CircuitRow& row, const CircuitIdentity& identity);
/// The same as GraphML. Numbers that are not known are left out.
std::string circuit_graphml(const CircuitRow& row, const CircuitIdentity& identity);

}  // namespace routescope::analysis
