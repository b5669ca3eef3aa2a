#include "model/pass/direct.h"

#include <algorithm>
#include <utility>

#include "model/pass/sublayers.h"

namespace routescope::model {

namespace {

using Values = std::vector<double>;

/// A read from the partials that lie in the state.
void read_again(PassState& pass, EditScratch& edits, int r, const RoutingIntervention& intervention) {
  const Interventions one(&intervention);
  forward_read(pass, r, one.alpha_override(0, r), true, -1);
  if (const ReadEdit* edit = one.edit(0, r)) edit_read(pass, edits, r, *edit, 0, pass.shape.batch);
}

/// What the sublayer of read r makes of its input minus what it made before.
Values change_of_output(PassState& pass, DirectScratch& scratch, int r) {
  forward_sublayer(pass, r, scratch.output.tensor, pass.at(r).x);
  Values change = kernels::host_values<double>(scratch.output.tensor, pass.stream);
  const Values next = kernels::host_values<double>(pass.at(r + 1).state.partial, pass.stream);
  const bool continues = pass.read(r + 1).continues;
  const Values before = continues ? kernels::host_values<double>(pass.at(r).state.partial, pass.stream) : Values{};
  for (std::size_t i = 0; i < change.size(); ++i) change[i] -= next[i] - (continues ? before[i] : 0);
  return change;
}

void allocate(PassState& pass, DirectScratch& scratch, std::size_t sources) {
  const std::int64_t tokens = pass.shape.tokens(), d = pass.config.hidden_size;
  const kernels::DType activations = pass.model.options().activations();
  const kernels::Device device = pass.model.options().device;
  if (!scratch.output.tensor) {
    scratch.output = kernels::OwnedTensor(activations, device, {tokens, d});
    scratch.normed = kernels::OwnedTensor(pass.model.options().operands, device, {tokens, d});
  }
  while (scratch.values.size() < sources) {
    scratch.values.emplace_back(activations, device, std::initializer_list<std::int64_t>{tokens, d});
    scratch.inv_rms.emplace_back(pass.model.options().storage, device, std::initializer_list<std::int64_t>{tokens});
  }
}

}  // namespace

bool is_part_of(const ReadPlan& plan, int writer, int r) {
  for (int t = writer + 1; t <= r; ++t)
    if (!plan.reads[static_cast<std::size_t>(t)].continues) return false;
  return r >= writer;
}

void forward_direct(PassState& pass, DirectScratch& scratch, EditScratch& edits,
                    const RoutingIntervention& intervention, std::span<const int> reads) {
  const kernels::Range range("direct");
  const int last = pass.last_read();
  std::vector<int> sources = pass.read(last).routed ? pass.read(last).sources : std::vector<int>{};
  sources.push_back(last);
  allocate(pass, scratch, sources.size());

  std::vector<Values> values;
  for (int source : sources) values.push_back(kernels::host_values<double>(pass.at(source).state.partial, pass.stream));
  for (int r : reads) {
    if (r == last) continue;
    read_again(pass, edits, r, intervention);
    const Values change = change_of_output(pass, scratch, r);
    for (std::size_t k = 0; k < sources.size(); ++k) {
      if (!is_part_of(pass.plan, r + 1, sources[k])) continue;
      for (std::size_t i = 0; i < change.size(); ++i) values[k][i] += change[i];
    }
  }

  // The last read of the changed sources, which take the places of the intact ones for it.
  std::vector<kernels::AttnResState> intact;
  for (std::size_t k = 0; k < sources.size(); ++k) {
    kernels::AttnResState& state = pass.at(sources[k]).state;
    intact.push_back(state);
    const kernels::Tensor value = scratch.values[k].tensor, inv_rms = scratch.inv_rms[k].tensor;
    kernels::cast(value, kernels::Tensor(values[k].data(), kernels::DType::f64, kernels::Device::cpu, {value.numel()}),
                  pass.stream);
    if (sources[k] != last)
      kernels::add_rms_norm_forward(scratch.normed.tensor, value, inv_rms, {}, value,
                                    pass.norm_gain(pass.model.weights(), last), pass.config.rms_norm_eps, pass.stream);
    state.partial = value;
    state.inv_rms = inv_rms;
  }
  const bool changed = std::find(reads.begin(), reads.end(), last) != reads.end();
  read_again(pass, edits, last, changed ? intervention : RoutingIntervention{});
  for (std::size_t k = 0; k < sources.size(); ++k) pass.at(sources[k]).state = intact[k];
}

}  // namespace routescope::model
