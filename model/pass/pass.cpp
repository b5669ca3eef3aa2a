// What callers see of a pass.
#include <algorithm>
#include <stdexcept>

#include "model/pass/pass_impl.h"

namespace routescope::model {

namespace {

kernels::AttentionShape attention_shape(const ModelConfig& config, std::int64_t batch, std::int64_t seq_len) {
  if (batch < 1 || seq_len < 1) throw std::invalid_argument("a pass needs at least one sequence of at least one token");
  return {batch, seq_len, config.num_attention_heads, config.num_key_value_heads, config.head_dim};
}

}  // namespace

MatrixPlaces::MatrixPlaces(const ParameterLayout& layout, std::int64_t num_layers) : end(layout.matrices_end()) {
  const auto of_layer = [&](std::int64_t l, const char* matrix) {
    return layout.at("model.layers." + std::to_string(l) + "." + matrix + ".weight");
  };
  const ParameterInfo& embedding = layout.at("model.embed_tokens.weight");
  embedding_end = embedding.offset + embedding.size;
  for (std::int64_t l = 0; l < num_layers; ++l) {
    const ParameterInfo down = of_layer(l, "mlp.down_proj");
    layers.push_back(
        {of_layer(l, "self_attn.q_proj").offset, of_layer(l, "mlp.gate_proj").offset, down.offset + down.size});
  }
}

std::vector<kernels::Arena::Part> Pass::plan_memory(const ModelConfig& config, const ModelOptions& model,
                                                    std::int64_t batch, std::int64_t seq_len, Kind kind,
                                                    const PassOptions& options) {
  kernels::Arena planner(model.device);
  Activations().take(planner, config, ReadPlan(config), model, attention_shape(config, batch, seq_len),
                     kind == Kind::train, options);
  return planner.parts();
}

Pass::Pass(const Model& model, std::int64_t batch, std::int64_t seq_len, Kind kind, const PassOptions& options) {
  if (options.graph && model.options().device != kernels::Device::cuda)
    throw std::invalid_argument("a pass is recorded as a graph on CUDA only");
  std::size_t bytes = 0;
  for (const kernels::Arena::Part& part : plan_memory(model.config(), model.options(), batch, seq_len, kind, options))
    bytes += part.bytes;
  impl_ = std::make_unique<Impl>(model, attention_shape(model.config(), batch, seq_len), kind, options, bytes);
}

Pass::Pass(Pass&&) noexcept = default;
Pass::~Pass() = default;

void Pass::forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
  impl_->forward(ids, intervention, first_read);
}

void Pass::nll(std::span<const std::int32_t> targets, std::span<float> out) {
  if (out.size() != targets.size()) throw std::invalid_argument("nll: out and targets differ in size");
  impl_->forward_loss(targets);
  kernels::cast(
      kernels::Tensor(out.data(), kernels::DType::f32, kernels::Device::cpu, {static_cast<std::int64_t>(out.size())}),
      impl_->act.nll, impl_->stream);
}

void Pass::logits(std::int64_t begin, std::int64_t end, kernels::Tensor out) {
  if (!impl_->ran) throw std::invalid_argument("no forward pass has run");
  const kernels::Tensor x = impl_->at(impl_->last_read()).x, own = impl_->act.logits;
  const auto product = [&](kernels::Tensor to, std::int64_t from, std::int64_t until) {
    kernels::matmul(to, x.rows(from, until), kNo, impl_->model.operands().head, kYes, false, impl_->stream);
  };
  if (out.device == own.device && out.dtype == own.dtype) return product(out, begin, end);
  for (std::int64_t chunk = begin; chunk < end; chunk += impl_->act.head_rows) {
    const std::int64_t chunk_end = std::min(chunk + impl_->act.head_rows, end);
    product(own.rows(0, chunk_end - chunk), chunk, chunk_end);
    kernels::cast(out.rows(chunk - begin, chunk_end - begin), own.rows(0, chunk_end - chunk), impl_->stream);
  }
}

double Pass::loss(std::span<const std::int32_t> targets) {
  impl_->forward_loss(targets);
  double sum = 0;
  for (const double value : kernels::host_values<double>(impl_->act.nll, impl_->stream)) sum += value;
  return sum;
}

void Pass::backward(std::span<const std::int32_t> targets, double scale, kernels::Tensor gradients) {
  if (impl_->kind != Kind::train) throw std::invalid_argument("backward: this pass keeps no activations");
  if (!impl_->ran) throw std::invalid_argument("no forward pass has run");
  if (impl_->first_edited != Impl::no_read)
    throw std::logic_error("backward: read " + impl_->read(impl_->first_edited).name +
                           " ran with edited weights, which have no gradient");
  impl_->set_targets(targets);
  impl_->backward(scale, Weights(impl_->config, impl_->model.layout(), gradients), {});
}

void Pass::accumulate(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, double scale,
                      kernels::Tensor gradients, const PassHooks& hooks) {
  if (impl_->kind != Kind::train) throw std::invalid_argument("accumulate: this pass keeps no activations");
  impl_->ran = false;
  impl_->set_ids(ids);
  impl_->set_targets(targets);
  impl_->set_logit_bias(0, nullptr);
  impl_->first_edited = Impl::no_read;
  impl_->accumulate(scale, gradients, hooks);
}

double Pass::take_loss() {
  return impl_->take_loss();
}

kernels::Tensor Pass::alpha(int read) const {
  return impl_->at(read).state.alpha;
}

std::vector<kernels::Tensor> Pass::source_inv_rms(int read) const {
  std::vector<kernels::Tensor> out = impl_->sources_of(read).inv_rms;
  out.push_back(impl_->at(read).state.inv_rms);
  return out;
}

kernels::Tensor Pass::partial(int read) const {
  return impl_->at(read).state.partial;
}

kernels::Tensor Pass::dlogit(int read) const {
  if (impl_->kind != Kind::train) throw std::invalid_argument("dlogit: this pass keeps no gradients");
  return impl_->act.backward.dlogit[static_cast<std::size_t>(read)];
}

std::int64_t Pass::batch() const {
  return impl_->shape.batch;
}
std::int64_t Pass::seq_len() const {
  return impl_->shape.seq_len;
}
std::int64_t Pass::tokens() const {
  return impl_->shape.tokens();
}
const kernels::Stream& Pass::stream() const {
  return impl_->stream;
}
const std::vector<kernels::Arena::Part>& Pass::memory() const {
  return impl_->arena.parts();
}

}  // namespace routescope::model
