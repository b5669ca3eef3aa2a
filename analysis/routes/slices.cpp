#include "analysis/routes/slices.h"

namespace routescope::analysis {

std::string Slice::name() const {
  return model::to_string(family) + "." + model::to_string(sublayer) + "." + model::to_string(depth);
}

std::string slice_name(std::size_t slice) {
  return Slice{static_cast<model::Family>(slice / 6),
               static_cast<model::Sublayer>(slice / 3 % 2),
               static_cast<model::Depth>(slice % 3),
               {},
               {}}
      .name();
}

std::vector<Slice> make_slices(const model::ReadPlan& plan) {
  std::vector<Slice> slices;
  slices.reserve(num_slices);
  for (model::Family family : {model::Family::embedding, model::Family::history, model::Family::current}) {
    for (model::Sublayer sublayer : {model::Sublayer::attn, model::Sublayer::mlp}) {
      for (model::Depth depth : {model::Depth::early, model::Depth::mid, model::Depth::late}) {
        Slice slice{family, sublayer, depth, {}, {}};
        for (int r = 0; r < plan.num_routed(); ++r) {
          const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
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

}  // namespace routescope::analysis
