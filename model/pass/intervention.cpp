#include "model/pass/intervention.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace routescope::model {

namespace {

std::string described(const kernels::Tensor& tensor) {
  static const char* const types[] = {"f64", "f32", "bf16", "i32"};
  return std::to_string(tensor.numel()) + " " + types[static_cast<std::size_t>(tensor.dtype)] +
         (tensor.device == kernels::Device::cpu ? " on the CPU" : " on CUDA");
}

}  // namespace

void check_edits(const Model& model, const RoutingIntervention& intervention) {
  const ReadPlan& plan = model.plan();
  const kernels::Tensor expected(nullptr, model.options().activations(), model.options().device,
                                 {model.config().hidden_size});
  for (const auto& [r, edit] : intervention.edits) {
    if (r < 0 || r >= plan.num_routed())
      throw std::invalid_argument("edits: read " + std::to_string(r) + ", expected one of the " +
                                  std::to_string(plan.num_routed()) + " routed reads");
    const std::string& name = plan.reads[static_cast<std::size_t>(r)].name;
    if (!edit.alpha) throw std::invalid_argument("edits: read " + name + " has no function for its weights");
    for (std::size_t e = 0; e < edit.extra.size(); ++e) {
      const kernels::Tensor& extra = edit.extra[e];
      if (!extra || extra.dtype != expected.dtype || extra.device != expected.device ||
          extra.numel() != expected.numel())
        throw std::invalid_argument("edits: read " + name + ", extra " + std::to_string(e) + ": found " +
                                    (extra ? described(extra) : "nothing") + ", expected " + described(expected));
    }
  }
}

std::vector<double> total_logit_bias(const ModelConfig& config, const ReadPlan& plan,
                                     const RoutingIntervention* intervention, int first_read,
                                     std::span<const double> before) {
  std::vector<double> total;
  for (int r = 0; r < static_cast<int>(plan.reads.size()); ++r) {
    const Read& read = plan.reads[static_cast<std::size_t>(r)];
    if (!read.routed) continue;
    const std::size_t begin = total.size(), count = read.columns.size();
    if (r < first_read) {
      const std::span<const double> kept = before.subspan(begin, count);
      total.insert(total.end(), kept.begin(), kept.end());
      continue;
    }
    total.resize(begin + count, 0.0);
    if (!config.has_learned_bias() && count > 1) total.back() = config.recency_bias;
    if (intervention && !intervention->logit_bias.empty()) {
      const auto& row = intervention->logit_bias.at(static_cast<std::size_t>(r));
      for (std::size_t i = 0; i < count; ++i) total[begin + i] += row.at(static_cast<std::size_t>(read.columns[i]));
    }
    if (std::none_of(total.begin() + static_cast<std::ptrdiff_t>(begin), total.end(),
                     [](double bias) { return bias > -INFINITY; }))
      throw std::invalid_argument("logit_bias: read " + read.name + " is left without a source");
  }
  return total;
}

}  // namespace routescope::model
