// Which read sees which sources: the residual stream of every mode, laid out as a list before anything is computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/files/config.h"

namespace routescope::model {

enum class Sublayer { attn, mlp, final };
enum class Family { embedding, history, current };
enum class Depth { early, mid, late };

std::string to_string(Sublayer sublayer);
std::string to_string(Family family);
std::string to_string(Depth depth);

/// The input of one sublayer (or of the final norm). Read r's partial p_r is its current source; p_r = p_{r-1} +
/// y_{r-1} or, after a block was completed, y_{r-1} alone, where y_{r-1} is the output of the sublayer that read r-1
/// fed. Every completed source is some read's partial, so sources are named by read.
struct Read {
  std::string name;         // "0.attn", "0.mlp", ..., "final"
  std::int64_t layer = -1;  // -1 for final
  Sublayer sublayer = Sublayer::attn;
  bool routed = false;         // false: h = p
  bool continues = false;      // p_r = p_{r-1} + y_{r-1}; else p_r = y_{r-1} (read 0: the embedding)
  std::vector<int> sources;    // completed ones, oldest first: read indices <= this read's own
  std::vector<int> columns;    // column of each completed source, then of the current one
  bool first_of_group = true;  // the earliest read with exactly these completed sources
};

struct ReadPlan {
  std::vector<Read> reads;           // 2L, or 2L + 1: the last one feeds the final norm, routed or not
  std::vector<std::string> columns;  // "embedding", "block_1", ..., "block_K", "current"
  std::int64_t num_layers = 0;

  explicit ReadPlan(const ModelConfig& config);

  /// The reads that are AttnRes applications: what files call /read. Standard models have none.
  /// A prefix of `reads`: the final entry is not routed in `cumulative`.
  int num_routed() const;
  int num_columns() const { return static_cast<int>(columns.size()); }
  Family family(int column) const;
  /// floor(3 l / L) of a read in a layer; the final read counts as late.
  Depth depth(int read) const;
};

}  // namespace routescope::model
