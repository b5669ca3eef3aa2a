#include "analysis/slices.h"

#include <limits>

namespace routescope {

std::string Slice::name() const {
  return to_string(family) + "." + to_string(sublayer) + "." + to_string(depth);
}

std::vector<Slice> make_slices(const ReadPlan& plan) {
  std::vector<Slice> slices;
  slices.reserve(num_slices);
  for (Family family : {Family::embedding, Family::history, Family::current}) {
    for (Sublayer sublayer : {Sublayer::attn, Sublayer::mlp}) {
      for (Depth depth : {Depth::early, Depth::mid, Depth::late}) {
        Slice slice{family, sublayer, depth, {}, {}};
        for (int r = 0; r < plan.num_routed(); ++r) {
          const Read& read = plan.reads[static_cast<std::size_t>(r)];
          if (read.sublayer != sublayer || plan.depth(r) != depth) continue;
          slice.reads.push_back(r);
          for (int column : read.columns) {
            if (plan.family(column) == family) slice.routes.emplace_back(r, column);
          }
        }
        slices.push_back(std::move(slice));
      }
    }
  }
  return slices;
}

std::vector<double> slice_masses(std::span<const Slice> slices, std::span<const double> alpha_mean, int columns) {
  std::vector<double> masses;
  masses.reserve(slices.size());
  for (const Slice& slice : slices) {
    double sum = 0;
    for (const auto& [read, column] : slice.routes)
      sum += alpha_mean[static_cast<std::size_t>(read * columns + column)];
    masses.push_back(slice.reads.empty() ? std::numeric_limits<double>::quiet_NaN()
                                         : sum / static_cast<double>(slice.reads.size()));
  }
  return masses;
}

SliceMask mask_slice(const ReadPlan& plan, const Slice& slice) {
  SliceMask mask;
  if (slice.reads.empty()) {
    mask.coverage = std::numeric_limits<double>::quiet_NaN();
    return mask;
  }
  auto& logit_bias = mask.intervention.logit_bias;
  logit_bias.assign(static_cast<std::size_t>(plan.num_routed()),
                    std::vector<double>(static_cast<std::size_t>(plan.num_columns()), 0.0));
  for (auto route = slice.routes.begin(); route != slice.routes.end();) {
    const int read = route->first;
    auto end = route;
    while (end != slice.routes.end() && end->first == read) ++end;
    const auto sources = static_cast<std::ptrdiff_t>(plan.reads[static_cast<std::size_t>(read)].columns.size());
    if (end - route < sources) {
      for (auto it = route; it != end; ++it) {
        logit_bias[static_cast<std::size_t>(read)][static_cast<std::size_t>(it->second)] =
            -std::numeric_limits<double>::infinity();
      }
      mask.masked_reads.push_back(read);
    }
    route = end;
  }
  mask.coverage = static_cast<double>(mask.masked_reads.size()) / static_cast<double>(slice.reads.size());
  return mask;
}

}  // namespace routescope
