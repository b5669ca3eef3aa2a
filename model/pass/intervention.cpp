#include "model/pass/intervention.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/ops.h"

namespace routescope::model {

namespace {

std::string described(const kernels::Tensor& tensor) {
  static const char* const types[] = {"f64", "f32", "bf16", "i32"};
  return std::to_string(tensor.numel()) + " " + types[static_cast<std::size_t>(tensor.dtype)] +
         (tensor.device == kernels::Device::cpu ? " on the CPU" : " on CUDA");
}

void check_extra(const Model& model, const Read& read, const ExtraValue& extra, std::int64_t tokens,
                 const std::string& where) {
  const std::int64_t d = model.config().hidden_size;
  const kernels::Tensor expected(nullptr, model.options().activations(), model.options().device, {d});
  if (!extra.table) {
    const std::size_t sources = read.columns.size();
    std::string found;
    if (extra.source < 0)
      found = "nothing";
    else if (static_cast<std::size_t>(extra.source) >= sources)
      found = "source " + std::to_string(extra.source) + ", of which it has " + std::to_string(sources);
    else if (extra.rows.empty())
      found = "a source without rows";
    if (!found.empty())
      throw std::invalid_argument(where + ": found " + found +
                                  ", expected a table or rows of one of the read's sources");
  } else if (extra.table.dtype != expected.dtype || extra.table.device != expected.device ||
             extra.table.numel() % d != 0) {
    throw std::invalid_argument(where + ": found " + described(extra.table) + ", expected rows of " +
                                described(expected));
  }
  if (extra.rows.empty()) return;
  if (std::ssize(extra.rows) != tokens)
    throw std::invalid_argument(where + ": found " + std::to_string(extra.rows.size()) + " rows, expected " +
                                std::to_string(tokens));
  const std::int64_t rows = extra.table ? extra.table.numel() / d : tokens;
  const auto wrong =
      std::find_if(extra.rows.begin(), extra.rows.end(), [&](int row) { return row < 0 || row >= rows; });
  if (wrong != extra.rows.end())
    throw std::invalid_argument(where + ": found row " + std::to_string(*wrong) + ", expected 0 to " +
                                std::to_string(rows - 1));
}

}  // namespace

void check_edits(const Model& model, const RoutingIntervention& intervention, std::int64_t tokens) {
  const ReadPlan& plan = model.plan();
  for (const auto& [r, edit] : intervention.edits) {
    if (r < 0 || r >= std::ssize(plan.reads))
      throw std::invalid_argument("edits: read " + std::to_string(r) + ", expected one of the " +
                                  std::to_string(plan.reads.size()) + " reads");
    const Read& read = plan.reads[static_cast<std::size_t>(r)];
    if (!read.routed && edit.logits)
      throw std::invalid_argument("edits: read " + read.name + " is not routed: it has no logits");
    for (const ExtraValue& extra : edit.extra)
      if (!read.routed && !extra.table)
        throw std::invalid_argument("edits: read " + read.name + " is not routed: expected a table");
    if (!edit.alpha && (!edit.logits || !edit.extra.empty()))
      throw std::invalid_argument("edits: read " + read.name + " has no function for its weights");
    for (std::size_t e = 0; e < edit.extra.size(); ++e)
      check_extra(model, read, edit.extra[e], tokens, "edits: read " + read.name + ", extra " + std::to_string(e));
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

std::vector<double> own_logit_bias(const Model& model, int read) {
  std::vector<double> bias(model.plan().reads[static_cast<std::size_t>(read)].columns.size());
  total_logit_bias(model.config(), model.plan(), read, Interventions(), bias);
  if (const kernels::Tensor& learned = model.weights().reads[static_cast<std::size_t>(read)].bias)
    bias.back() += kernels::host_values<double>(learned, kernels::Stream{.device = model.options().device}).front();
  return bias;
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
