#include "model/pass/reads.h"

#include <algorithm>
#include <stdexcept>

namespace routescope::model {

std::string to_string(Sublayer sublayer) {
  return sublayer == Sublayer::attn ? "attn" : sublayer == Sublayer::mlp ? "mlp" : "final";
}

std::string to_string(Family family) {
  return family == Family::embedding ? "embedding" : family == Family::history ? "history" : "current";
}

std::string to_string(Depth depth) {
  return depth == Depth::early ? "early" : depth == Depth::mid ? "mid" : "late";
}

ReadPlan::ReadPlan(const ModelConfig& config) : num_layers(config.num_hidden_layers) {
  const int sublayers = static_cast<int>(2 * num_layers);
  const bool full = config.residual == Residual::full_attn_res;
  const bool block_sum = config.source == AttnResSource::block_sum;

  std::vector<int> completed;  // C of MATH.md, "Residual stream and reads", as read indices
  bool continues = false;
  for (int r = 0; r <= sublayers; ++r) {
    Read read;
    const bool final = r == sublayers;
    read.layer = final ? -1 : r / 2;
    read.sublayer = final ? Sublayer::final : r % 2 == 0 ? Sublayer::attn : Sublayer::mlp;
    read.name = final ? "final" : std::to_string(read.layer) + "." + to_string(read.sublayer);
    read.routed = config.routed() && (!final || config.has_final_read());
    read.continues = continues;

    if (config.routed() && !block_sum) {
      // The partial is copied to the sources when a block ends, before the read that follows: a source that is also
      // current.
      const bool block_ended = r > 0 && r % (2 * config.layers_per_block()) == 0;
      if (r == 0 || full || block_ended) completed.push_back(r);
    }
    if (read.routed) read.sources = completed;
    continues = true;
    if (config.routed() && block_sum) {
      // The partial moves to the sources after the read that opens a block, and starts again empty.
      const bool block_starts = r % (2 * config.layers_per_block()) == 0;
      if (full || block_starts) {
        completed.push_back(r);
        continues = false;
      }
    }
    read.first_of_group = reads.empty() || !read.routed || read.sources != reads.back().sources;
    reads.push_back(std::move(read));
  }

  if (!config.routed()) return;
  std::size_t most = 1;
  for (const Read& read : reads) most = std::max(most, read.sources.size());
  columns.emplace_back("embedding");
  for (std::size_t k = 1; k < most; ++k) columns.push_back("block_" + std::to_string(k));
  columns.emplace_back("current");
  for (Read& read : reads) {
    if (!read.routed) continue;
    for (std::size_t i = 0; i < read.sources.size(); ++i) read.columns.push_back(static_cast<int>(i));
    // block_sum's very first read has the embedding as its current and only source: it stands in its own column.
    read.columns.push_back(read.sources.empty() ? 0 : num_columns() - 1);
  }
}

int ReadPlan::num_routed() const {
  return static_cast<int>(std::count_if(reads.begin(), reads.end(), [](const Read& read) { return read.routed; }));
}

Family ReadPlan::family(int column) const {
  if (column < 0 || column >= num_columns()) throw std::out_of_range("no such source column");
  return column == 0 ? Family::embedding : column == num_columns() - 1 ? Family::current : Family::history;
}

Depth ReadPlan::depth(int read) const {
  const std::int64_t layer = reads.at(static_cast<std::size_t>(read)).layer;
  return layer < 0 ? Depth::late : static_cast<Depth>(3 * layer / num_layers);
}

}  // namespace routescope::model
