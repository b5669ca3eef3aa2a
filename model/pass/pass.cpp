#include "model/pass/pass.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "data/base/error.h"
#include "model/pass/direct.h"
#include "model/pass/pass_state.h"
#include "model/pass/read_steps.h"
#include "model/pass/sublayers.h"

namespace routescope::model {

namespace {

constexpr int kNoRead = std::numeric_limits<int>::max();

kernels::AttentionShape attention_shape(const ModelConfig& config, std::int64_t batch, std::int64_t seq_len) {
  if (batch < 1 || seq_len < 1) throw std::invalid_argument("a pass needs at least one sequence of at least one token");
  return {batch, seq_len, config.num_attention_heads, config.num_key_value_heads, config.head_dim};
}

}  // namespace

struct Pass::Impl {
  PassState state;
  Kind kind;
  MatrixPlaces places;
  Upload upload;
  std::vector<double> logit_bias;  // of all reads, as it lies on the device
  std::vector<bool> bias_differs;  // by read: between sequences
  EditScratch edit_scratch;
  DirectScratch direct_scratch;
  bool sublayer_ran = false;       // since the last forward pass
  bool ran = false;                // the state holds a whole forward pass
  bool input_lost = false;         // x of the last read, which a backward pass wrote over (Recompute::norms)
  int first_edited = kNoRead;      // the earliest read whose edited weights the state depends on
  kernels::RecordedWork recorded;  // accumulate() with the two arguments below
  double recorded_scale = 0;
  void* recorded_gradients = nullptr;
  int accumulated = 0;

  Impl(const Model& model, const kernels::AttentionShape& shape, Kind kind_, const PassOptions& options,
       std::size_t bytes)
      : state(model, shape, kind_ == Kind::train, options, bytes),
        kind(kind_),
        places(model.layout(), model.config().num_hidden_layers),
        upload(model.options().device, static_cast<std::size_t>(shape.tokens()) * sizeof(std::int32_t)) {
    // A NaN equals nothing, so the first set_logit_bias() writes the entries of every read.
    logit_bias.assign(static_cast<std::size_t>(state.act.logit_bias.numel()), std::nan(""));
    bias_differs.assign(state.plan.reads.size(), false);
  }

  void set_tokens(kernels::Tensor to, std::span<const std::int32_t> ids, const char* what, std::int32_t least);
  void set_ids(std::span<const std::int32_t> ids) { set_tokens(state.act.ids, ids, "token", 0); }
  void set_targets(std::span<const std::int32_t> targets) { set_tokens(state.act.targets, targets, "target", -1); }
  /// Of reads from `first_read` on.
  void set_logit_bias(int first_read, const Interventions& interventions);

  /// From act.ids, or from what an earlier pass computed before `first_read`, to the final norm. Only puts work on the
  /// stream.
  void run_forward(const Interventions& interventions, int first_read, const PassHooks& hooks);
  /// Read r of every sequence by itself.
  void run_read_of_each(const Interventions& interventions, int r, bool resumed);
  /// Throws std::invalid_argument where the pass cannot resume.
  void forward(std::span<const std::int32_t> ids, const Interventions& interventions, int first_read);
  /// From the loss to the embedding. Only puts work on the stream.
  void run_backward(double scale, const Weights& gradients, const PassHooks& hooks, const AtRead& at_read = {});

  /// Before work that reads x of the last read.
  void require_forward() {
    if (!ran) throw std::invalid_argument("no forward pass has run");
    if (input_lost) recompute_input(state, state.last_read());
    input_lost = false;
  }
  void require_training(const char* what) const {
    if (kind != Kind::train) throw std::invalid_argument(std::string(what) + ": this pass keeps no activations");
  }
};

// ---- the two passes -------------------------------------------------------------------------------------------------

/// Read r feeds sublayer r, whose output goes into partial r + 1.
void Pass::Impl::run_forward(const Interventions& interventions, int first_read, const PassHooks& hooks) {
  const kernels::Range range("forward");
  const auto need = [&](std::int64_t end) {
    if (hooks.needed) hooks.needed(end);
  };
  if (first_read == 0) {
    need(places.embedding_end);
    kernels::embedding_forward(state.at(0).state.partial, state.act.ids, state.model.operands().embedding,
                               state.stream);
  }
  if (first_edited >= first_read) first_edited = kNoRead;
  int prepared_first = -1, prepared_end = 0;
  for (int r = first_read; r <= state.last_read(); ++r) {
    const Read& read = state.read(r);
    const bool resumed = first_read > 0 && r == first_read;
    const bool each = bias_differs[static_cast<std::size_t>(r)] || interventions.differ_at(r);
    const kernels::Tensor alpha_override = each ? kernels::Tensor{} : interventions.alpha_override(0, r);
    state.alpha_is_given[static_cast<std::size_t>(r)] = alpha_override.defined();
    if (r >= prepared_end) {
      prepared_first = -1;
      const int count = reads_to_prepare(state.plan, r, state.options, state.model.options().device);
      if (count > 0) {
        prepare_reads(state, r, count);
        prepared_first = r;
        prepared_end = r + count;
      }
    }
    if (each) {
      run_read_of_each(interventions, r, resumed);
    } else {
      forward_read(state, r, alpha_override, resumed, prepared_first);
      if (const ReadEdit* edit = interventions.edit(0, r)) {
        first_edited = std::min(first_edited, r);
        edit_read(state, edit_scratch, r, *edit, 0, state.shape.batch);
      }
    }
    if (r == state.last_read()) break;
    const MatrixPlaces::Layer& place = places.layers[static_cast<std::size_t>(read.layer)];
    need(read.sublayer == Sublayer::attn ? place.mlp : place.end);
    forward_sublayer(state, r, state.at(r + 1).state.partial, state.at(r).x);
  }
  need(places.end);  // the head, which follows
  ran = true;
  input_lost = sublayer_ran = false;
}

void Pass::Impl::run_read_of_each(const Interventions& interventions, int r, bool resumed) {
  for (std::int64_t q = 0; q < state.shape.batch; ++q) {
    forward_read_of(state, q, r, interventions.alpha_override(q, r), resumed);
    if (const ReadEdit* edit = interventions.edit(q, r)) edit_read(state, edit_scratch, r, *edit, q, 1);
  }
}

void Pass::Impl::run_backward(double scale, const Weights& gradients, const PassHooks& hooks, const AtRead& at_read) {
  const kernels::Range range("backward");
  const BackwardScratch& b = state.act.backward;
  const auto complete = [&](std::int64_t begin) {
    if (hooks.complete) hooks.complete(begin);
  };
  backward_head(state, scale, gradients);
  complete(places.layers.back().end);  // an untied head; a tied one is the embedding
  kernels::fill(b.dp, 0.0, state.stream);
  for (const kernels::Tensor& dsource : b.dsource)
    if (dsource) kernels::fill(dsource, 0.0, state.stream);

  if (at_read) at_read(state.last_read(), b.dx, {});
  int group_last = state.last_read();
  for (int r = state.last_read(); r >= 0; --r) {
    int group_first = r;
    while (!state.read(group_first).first_of_group) --group_first;
    backward_read(state, r, gradients, group_first);
    if (r == group_first) {
      if (state.read(r).routed) backward_group_sources(state, group_first, group_last);
      group_last = r - 1;
    }
    if (const kernels::Tensor& dsource = b.dsource[static_cast<std::size_t>(r)])
      kernels::add(b.dp, dsource, state.stream);
    if (r == 0) break;
    if (b.dy.data != b.dp.data) kernels::cast(b.dy, b.dp, state.stream);
    const Read& feeder = state.read(r - 1);
    if (state.options.recompute >= Recompute::norms) recompute_input(state, r - 1);
    const MatrixPlaces::Layer& place = places.layers[static_cast<std::size_t>(feeder.layer)];
    if (feeder.sublayer == Sublayer::attn) {
      backward_attention(state, feeder.layer, state.at(r - 1).x, gradients);
      complete(place.attention);
    } else {
      backward_mlp(state, feeder.layer, state.at(r - 1).x, gradients);
      complete(place.mlp);
    }
    if (at_read) at_read(r - 1, b.dx, b.dp);
    if (!state.read(r).continues) kernels::fill(b.dp, 0.0, state.stream);
  }
  kernels::embedding_backward(gradients.embedding, b.dp, state.act.ids, state.stream);
  complete(0);
  input_lost = state.options.recompute >= Recompute::norms;
  kernels::accumulate_loss(state.act.loss, state.act.nll, state.stream);
}

// ---- inputs ---------------------------------------------------------------------------------------------------------

void Pass::Impl::set_tokens(kernels::Tensor to, std::span<const std::int32_t> ids, const char* what,
                            std::int32_t least) {
  if (static_cast<std::int64_t>(ids.size()) != state.shape.tokens())
    throw std::invalid_argument(std::string(what) + "s do not fit the pass");
  const std::int64_t vocab = state.config.vocab_size;
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < least || ids[i] >= vocab)
      throw data::Error("{} {}: found id {}, expected {} to {} (the vocabulary)", what, i, ids[i], least, vocab - 1);
  upload.to(to, ids.data(), state.stream);
}

void Pass::Impl::set_logit_bias(int first_read, const Interventions& interventions) {
  const std::vector<double> before = logit_bias;
  std::size_t begin = 0;
  for (int r = 0; r <= state.last_read(); ++r) {
    if (!state.read(r).routed) continue;
    const auto count = static_cast<std::size_t>(state.at(r).logit_bias.numel());
    if (r >= first_read) {
      bias_differs[static_cast<std::size_t>(r)] =
          total_logit_bias(state.config, state.plan, r, interventions, std::span(logit_bias).subspan(begin, count));
    }
    begin += count;
  }
  if (before == logit_bias) return;
  kernels::cast(
      state.act.logit_bias,
      kernels::Tensor(logit_bias.data(), kernels::DType::f64, kernels::Device::cpu, {state.act.logit_bias.numel()}),
      state.stream);
}

// ---- the interface --------------------------------------------------------------------------------------------------

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

void Pass::Impl::forward(std::span<const std::int32_t> ids, const Interventions& interventions, int first_read) {
  if (static_cast<std::int64_t>(ids.size()) != state.shape.tokens())
    throw std::invalid_argument("forward: ids do not fit the pass");
  if (first_read < 0 || first_read > state.last_read() || (first_read > 0 && !ran))
    throw std::invalid_argument("forward: cannot resume at this read");
  ran = false;  // after an exception no pass can resume
  if (first_read == 0) set_ids(ids);
  set_logit_bias(first_read, interventions);
  run_forward(interventions, first_read, {});
}

void Pass::forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
  if (intervention) check_edits(impl_->state.model, *intervention, tokens());
  impl_->forward(ids, Interventions(intervention), first_read);
}

void Pass::forward_each(std::span<const std::int32_t> ids, std::span<const RoutingIntervention> of_sequences,
                        int first_read) {
  if (impl_->kind != Kind::infer || impl_->state.options.reads != ReadPhases::fused)
    throw std::invalid_argument("forward_each: expected a pass that infers, with fused reads");
  if (static_cast<std::int64_t>(of_sequences.size()) != batch())
    throw std::invalid_argument("forward_each: found " + std::to_string(of_sequences.size()) +
                                " interventions, expected one for each of " + std::to_string(batch()) + " sequences");
  for (const RoutingIntervention& one : of_sequences) check_edits(impl_->state.model, one, seq_len());
  impl_->forward(ids, Interventions(of_sequences), first_read);
}

void Pass::forward_direct(const RoutingIntervention& intervention, std::span<const int> reads) {
  check_edits(impl_->state.model, intervention, tokens());
  impl_->require_forward();
  impl_->sublayer_ran = true;
  impl_->set_logit_bias(0, Interventions(&intervention));
  model::forward_direct(impl_->state, impl_->direct_scratch, impl_->edit_scratch, intervention, reads);
  impl_->set_logit_bias(0, Interventions());
}

void Pass::nll(std::span<const std::int32_t> targets, std::span<float> out) {
  if (out.size() != targets.size()) throw std::invalid_argument("nll: out and targets differ in size");
  impl_->require_forward();
  impl_->set_targets(targets);
  forward_loss(impl_->state);
  kernels::cast(
      kernels::Tensor(out.data(), kernels::DType::f32, kernels::Device::cpu, {static_cast<std::int64_t>(out.size())}),
      impl_->state.act.nll, impl_->state.stream);
}

double Pass::loss(std::span<const std::int32_t> targets) {
  impl_->require_forward();
  impl_->set_targets(targets);
  forward_loss(impl_->state);
  double sum = 0;
  for (const double value : kernels::host_values<double>(impl_->state.act.nll, impl_->state.stream)) sum += value;
  return sum;
}

void Pass::logits(std::int64_t begin, std::int64_t end, kernels::Tensor out) {
  impl_->require_forward();
  head_logits(impl_->state, begin, end, out);
}

void Pass::backward(std::span<const std::int32_t> targets, double scale, kernels::Tensor gradients,
                    const AtRead& at_read) {
  Impl& impl = *impl_;
  impl.require_training("backward");
  impl.require_forward();
  if (impl.first_edited != kNoRead)
    throw std::logic_error("backward: read " + impl.state.read(impl.first_edited).name +
                           " ran with edited weights, which have no gradient");
  if (impl.sublayer_ran) throw std::logic_error("backward: a sublayer ran after forward()");
  impl.set_targets(targets);
  impl.run_backward(scale, Weights(impl.state.config, impl.state.model.layout(), gradients), {}, at_read);
}

void Pass::accumulate(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, double scale,
                      kernels::Tensor gradients, const PassHooks& hooks) {
  Impl& impl = *impl_;
  impl.require_training("accumulate");
  impl.ran = false;
  impl.set_ids(ids);
  impl.set_targets(targets);
  impl.set_logit_bias(0, Interventions(nullptr));
  impl.first_edited = kNoRead;
  const auto work = [&] {
    impl.run_forward(Interventions(nullptr), 0, hooks);
    impl.run_backward(scale, Weights(impl.state.config, impl.state.model.layout(), gradients), hooks);
  };
  // A recording holds the work of this stream alone. Hooks, and the work that they wait for, cannot be in it.
  if (!impl.state.options.graph || hooks.needed || hooks.complete) return work();
  // The first call is not recorded: matrix products choose their algorithms in it.
  if (impl.accumulated++ == 0) return work();
  if (!impl.recorded || impl.recorded_scale != scale || impl.recorded_gradients != gradients.data) {
    impl.recorded = kernels::RecordedWork(impl.state.stream, work);
    impl.recorded_scale = scale;
    impl.recorded_gradients = gradients.data;
  }
  impl.recorded.replay(impl.state.stream);
  impl.ran = true;
  impl.input_lost = impl.state.options.recompute >= Recompute::norms;
}

void Pass::sublayer(int read, kernels::Tensor y, kernels::Tensor x) {
  if (read == impl_->state.last_read()) throw std::invalid_argument("sublayer: the last read feeds the head");
  impl_->require_forward();
  impl_->sublayer_ran = true;
  forward_sublayer(impl_->state, read, y, x);
}

double Pass::take_loss() {
  const PassState& state = impl_->state;
  double sum = 0;
  kernels::copy(kernels::Tensor(&sum, kernels::DType::f64, kernels::Device::cpu, {1}), state.act.loss, state.stream);
  kernels::synchronize(state.stream);
  kernels::fill(state.act.loss, 0.0, state.stream);
  return sum;
}

kernels::Tensor Pass::alpha(int read) const {
  return impl_->state.at(read).state.alpha;
}

std::vector<kernels::Tensor> Pass::source_values(int read) const {
  std::vector<kernels::Tensor> out = impl_->state.sources_of(read).values;
  out.push_back(impl_->state.at(read).state.partial);
  return out;
}

std::vector<double> Pass::read_logits(int read) const {
  return model::read_logits(impl_->state, read);
}

std::vector<kernels::Tensor> Pass::source_inv_rms(int read) const {
  std::vector<kernels::Tensor> out = impl_->state.sources_of(read).inv_rms;
  out.push_back(impl_->state.at(read).state.inv_rms);
  return out;
}

kernels::Tensor Pass::partial(int read) const {
  return impl_->state.at(read).state.partial;
}

kernels::Tensor Pass::dlogit(int read) const {
  if (impl_->kind != Kind::train) throw std::invalid_argument("dlogit: this pass keeps no gradients");
  return impl_->state.act.backward.dlogit[static_cast<std::size_t>(read)];
}

std::int64_t Pass::batch() const {
  return impl_->state.shape.batch;
}
std::int64_t Pass::seq_len() const {
  return impl_->state.shape.seq_len;
}
std::int64_t Pass::tokens() const {
  return impl_->state.shape.tokens();
}
const kernels::Stream& Pass::stream() const {
  return impl_->state.stream;
}
const std::vector<kernels::Arena::Part>& Pass::memory() const {
  return impl_->state.arena.parts();
}

}  // namespace routescope::model
