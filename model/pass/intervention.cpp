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

kernels::Tensor Interventions::alpha_override(std::int64_t sequence, int r) const {
  if (!of(sequence)) return {};
  const auto found = of(sequence)->alpha_override.find(r);
  return found == of(sequence)->alpha_override.end() ? kernels::Tensor{} : found->second;
}

const ReadEdit* Interventions::edit(std::int64_t sequence, int r) const {
  if (!of(sequence)) return nullptr;
  const auto found = of(sequence)->edits.find(r);
  return found == of(sequence)->edits.end() ? nullptr : &found->second;
}

bool Interventions::differ_at(int r) const {
  return std::any_of(each_.begin(), each_.end(), [&](const RoutingIntervention& one) {
    return one.alpha_override.contains(r) || one.edits.contains(r);
  });
}

bool total_logit_bias(const ModelConfig& config, const ReadPlan& plan, int read, const Interventions& interventions,
                      std::span<double> total) {
  const Read& of = plan.reads[static_cast<std::size_t>(read)];
  const std::size_t columns = of.columns.size();
  bool differ = false;
  for (std::size_t q = 0; q < total.size() / columns; ++q) {
    const std::span<double> row = total.subspan(q * columns, columns);
    std::fill(row.begin(), row.end(), 0.0);
    if (!config.has_learned_bias() && columns > 1) row.back() = config.recency_bias;
    const RoutingIntervention* one = interventions.of(static_cast<std::int64_t>(q));
    if (one && !one->logit_bias.empty()) {
      const std::vector<double>& bias = one->logit_bias.at(static_cast<std::size_t>(read));
      for (std::size_t i = 0; i < columns; ++i) row[i] += bias.at(static_cast<std::size_t>(of.columns[i]));
    }
    if (std::none_of(row.begin(), row.end(), [](double bias) { return bias > -INFINITY; }))
      throw std::invalid_argument("logit_bias: read " + of.name + " is left without a source");
    differ = differ || !std::equal(row.begin(), row.end(), total.begin());
  }
  return differ;
}

}  // namespace routescope::model
