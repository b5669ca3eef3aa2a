// A read whose weights are edited after they are known (ReadEdit): the read is computed once as it is, and once more
// over its sources and the extra ones with the edited weights. Analysis only: whoever never edits pays nothing.
#include <limits>
#include <stdexcept>

#include "model/pass/pass_impl.h"

namespace routescope::model {

namespace {

std::string described(const kernels::Tensor& tensor) {
  static const char* const types[] = {"f64", "f32", "bf16", "i32"};
  return std::to_string(tensor.numel()) + " " + types[static_cast<std::size_t>(tensor.dtype)] +
         (tensor.device == kernels::Device::cpu ? " on the CPU" : " on CUDA");
}

}  // namespace

void Pass::Impl::check_edits(const RoutingIntervention& intervention) const {
  for (const auto& [r, edit] : intervention.edits) {
    if (r < 0 || r >= plan.num_routed())
      throw std::invalid_argument("edits: read " + std::to_string(r) + ", expected one of the " +
                                  std::to_string(plan.num_routed()) + " routed reads");
    if (!edit.alpha) throw std::invalid_argument("edits: read " + read(r).name + " has no function for its weights");
    const kernels::Tensor expected(nullptr, model.options().activations(), model.options().device,
                                   {config.hidden_size});
    for (std::size_t e = 0; e < edit.extra.size(); ++e) {
      const kernels::Tensor& extra = edit.extra[e];
      if (!extra || extra.dtype != expected.dtype || extra.device != expected.device ||
          extra.numel() != expected.numel())
        throw std::invalid_argument("edits: read " + read(r).name + ", extra " + std::to_string(e) + ": found " +
                                    (extra ? described(extra) : "nothing") + ", expected " + described(expected));
    }
  }
}

void Pass::Impl::edit_read(int r, const ReadEdit& edit) {
  const kernels::Range range("edit read");
  const kernels::DType storage = model.options().storage, activation = model.options().activations();
  const kernels::Device device = model.options().device;
  const std::int64_t tokens = shape.tokens(), d = config.hidden_size;
  const auto extras = static_cast<std::int64_t>(edit.extra.size());
  const auto n = static_cast<std::int64_t>(read(r).sources.size()), columns = n + 1 + extras;
  ReadActivations& a = at(r);

  const std::vector<double> alpha = kernels::host_values<double>(a.state.alpha, stream);
  std::vector<double> edited(static_cast<std::size_t>(tokens * columns), std::numeric_limits<double>::quiet_NaN());
  edit.alpha(alpha, edited);
  // The operation has the current source last.
  std::vector<double> ordered(edited.size());
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* from = edited.data() + t * columns;
    double* to = ordered.data() + t * columns;
    std::copy_n(from, n, to);
    std::copy_n(from + n + 1, extras, to + n);
    to[columns - 1] = from[n];
  }

  EditScratch& s = edit_scratch;
  if (!s.inv_rms.tensor) {
    s.inv_rms = kernels::OwnedTensor(storage, device, {tokens});
    s.h_inv_rms = kernels::OwnedTensor(storage, device, {tokens});
    s.zero_ids = kernels::OwnedTensor(kernels::DType::i32, device, {tokens});
  }
  if (s.columns < columns) {
    for (kernels::OwnedTensor* table : {&s.score, &s.alpha, &s.given})
      *table = kernels::OwnedTensor(storage, device, {tokens, columns});
    s.columns = columns;
  }
  while (static_cast<std::int64_t>(s.extra.size()) < extras)
    s.extra.emplace_back(activation, device, std::initializer_list<std::int64_t>{tokens, d});
  const auto table = [&](const kernels::OwnedTensor& owned) { return owned.tensor.slice(0, {tokens, columns}); };

  const kernels::Tensor given = table(s.given);
  kernels::cast(given, kernels::Tensor(ordered.data(), kernels::DType::f64, kernels::Device::cpu, {tokens, columns}),
                stream);
  SourceTensors sources = sources_of(r);
  for (std::size_t e = 0; e < edit.extra.size(); ++e) {
    // Row 0 of a table of one row, for every token.
    embedding_forward(s.extra[e].tensor, s.zero_ids.tensor, edit.extra[e].view({1, d}), stream);
    sources.values.push_back(s.extra[e].tensor);
    sources.inv_rms.push_back(a.state.inv_rms);  // of the right shape; a given alpha makes no use of scores
  }
  kernels::AttnResParams params = params_of(r);
  params.logit_bias = {};
  kernels::attn_res_forward(a.x,
                            {.partial = a.state.partial,
                             .inv_rms = s.inv_rms.tensor,
                             .score = table(s.score),
                             .alpha = table(s.alpha),
                             .h_inv_rms = s.h_inv_rms.tensor},
                            kernels::Tensor{}, a.state.partial, sources.view(), params, given, stream);
}

}  // namespace routescope::model
