#include "analysis/slices.h"

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

}  // namespace routescope
