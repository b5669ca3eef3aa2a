#include "model/pass/activations.h"

#include <algorithm>

namespace routescope::model {

namespace {

// Logits of at most this many bytes exist at one time; more rows a product make it faster, up to about this size.
constexpr std::int64_t kLogitsBytes = std::int64_t{512} << 20;
// On CUDA the gradient of the head, which every chunk adds to, is worth fewer and larger chunks.
constexpr std::int64_t kLogitsBytesCuda = std::int64_t{2} << 30;

std::int64_t rows_of_head(std::int64_t tokens, std::int64_t vocab, std::size_t element, kernels::Device device) {
  const std::int64_t bytes = device == kernels::Device::cuda ? kLogitsBytesCuda : kLogitsBytes;
  const std::int64_t most = std::max<std::int64_t>(16, bytes / (vocab * static_cast<std::int64_t>(element)));
  const std::int64_t chunks = (tokens + most - 1) / most;
  return (tokens + chunks - 1) / chunks;  // chunks of equal height
}

}  // namespace

int last_of_group(const ReadPlan& plan, int read) {
  const auto count = static_cast<int>(plan.reads.size());
  while (read + 1 < count && !plan.reads[static_cast<std::size_t>(read) + 1].first_of_group) ++read;
  return read;
}

int reads_to_prepare(const ReadPlan& plan, int read, const PassOptions& options, kernels::Device device) {
  const Read& first = plan.reads[static_cast<std::size_t>(read)];
  if (!first.routed || first.sources.empty() || first.sources.back() == read || options.reads == ReadPhases::fused)
    return 0;
  const int reads = last_of_group(plan, read) - read + 1;
  if (options.reads == ReadPhases::two) return reads;
  // Rows of d that move (MATH.md, "Cost").
  const auto n = static_cast<int>(first.sources.size());
  const bool fewer = n + reads + reads * 5 < reads * (n + 4);
  return device == kernels::Device::cuda && fewer ? reads : 0;
}

namespace {

/// What the sizes of all tensors follow from.
struct Sizes {
  const ModelConfig& config;
  const ReadPlan& plan;
  const ModelOptions& model;
  const kernels::AttentionShape& shape;
  bool train;
  const PassOptions& options;
  kernels::DType storage = model.storage, operand = model.operands, activation = model.activations();
  std::int64_t tokens = shape.tokens(), d = config.hidden_size, f = config.intermediate_size;
  std::int64_t attn_width = shape.heads * shape.head_dim, packed = shape.packed_width();

  static std::int64_t sources_of(const Read& read) { return static_cast<std::int64_t>(read.sources.size()) + 1; }
};

void take_reads(Activations& act, kernels::Arena& arena, const Sizes& s) {
  arena.begin_part("activations: residual stream");
  act.ids = arena.take(kernels::DType::i32, {s.tokens});
  act.targets = arena.take(kernels::DType::i32, {s.tokens});
  act.nll = arena.take(s.storage, {s.tokens});
  act.loss = arena.take(kernels::DType::f64, {1});
  const std::int64_t bias_rows = s.train ? 1 : s.shape.batch;
  std::int64_t biases = 0;
  for (const Read& read : s.plan.reads)
    if (read.routed) biases += bias_rows * s.sources_of(read);
  act.logit_bias = arena.take(s.storage, {biases});
  const bool keep_x = s.train && s.options.recompute < Recompute::norms;
  std::int64_t next_bias = 0;
  int most_prepared = 0;
  kernels::Tensor shared_x;
  for (std::size_t i = 0; i < s.plan.reads.size(); ++i) {
    const Read& read = s.plan.reads[i];
    ReadActivations r;
    r.state.partial = arena.take(s.activation, {s.tokens, s.d});
    r.state.inv_rms = arena.take(s.storage, {s.tokens});
    if (read.routed) {
      r.state.score = arena.take(s.storage, {s.tokens, s.sources_of(read)});
      r.state.alpha = arena.take(s.storage, {s.tokens, s.sources_of(read)});
      r.state.h_inv_rms = arena.take(s.storage, {s.tokens});
      r.logit_bias = act.logit_bias.slice(next_bias, {bias_rows, s.sources_of(read)});
      next_bias += r.logit_bias.numel();
      most_prepared = std::max(most_prepared, reads_to_prepare(s.plan, static_cast<int>(i), s.options, s.model.device));
    }
    if (keep_x || !shared_x) shared_x = arena.take(s.operand, {s.tokens, s.d});
    r.x = shared_x;
    act.reads.push_back(r);
  }
  for (int i = 0; i < most_prepared; ++i)
    act.prepared.push_back(
        {.output = arena.take(s.activation, {s.tokens, s.d}), .lse = arena.take(s.storage, {s.tokens}), .score = {}});
}

void take_layers(Activations& act, kernels::Arena& arena, const Sizes& s) {
  arena.begin_part("activations: attention and MLP");
  const bool keep_attention = s.train && s.options.recompute < Recompute::attention;
  const bool keep_act = s.train && s.options.recompute < Recompute::swiglu;
  for (std::int64_t layer = 0; layer < s.config.num_hidden_layers; ++layer) {
    LayerActivations l = layer > 0 ? act.layers.front() : LayerActivations{};
    const auto keep = [&](kernels::Tensor& tensor, bool kept, kernels::DType dtype,
                          std::initializer_list<std::int64_t> extents) {
      if (layer == 0 || kept) tensor = arena.take(dtype, extents);
    };
    keep(l.qkv_raw, s.train, s.activation, {s.tokens, s.packed});
    keep(l.qkv, keep_attention, s.activation, {s.tokens, s.packed});
    keep(l.lse, keep_attention, s.storage, {s.shape.batch, s.shape.heads, s.shape.seq_len});
    keep(l.attn_out, keep_attention, s.operand, {s.tokens, s.attn_width});
    keep(l.gate_up, s.train, s.activation, {s.tokens, 2 * s.f});
    keep(l.act, keep_act, s.operand, {s.tokens, s.f});
    act.layers.push_back(l);
  }
}

void take_backward(BackwardScratch& b, kernels::Arena& arena, const Sizes& s) {
  arena.begin_part("backward");
  const bool cast = s.operand != s.activation;
  b.dx = arena.take(s.activation, {s.tokens, s.d});
  b.dp = arena.take(s.activation, {s.tokens, s.d});
  b.dy = cast ? arena.take(s.operand, {s.tokens, s.d}) : b.dp;
  b.dattn_out = arena.take(s.activation, {s.tokens, s.attn_width});
  b.dqkv = arena.take(s.activation, {s.tokens, s.packed});
  b.dqkv_operand = cast ? arena.take(s.operand, {s.tokens, s.packed}) : b.dqkv;
  b.dact = arena.take(s.activation, {s.tokens, s.f});
  b.dgate_up = arena.take(s.operand, {s.tokens, 2 * s.f});
  b.dsource.resize(s.plan.reads.size());
  std::size_t in_group = 0;
  for (const Read& read : s.plan.reads) {
    if (!read.routed) {
      b.dlogit.emplace_back();
      continue;
    }
    b.dlogit.push_back(arena.take(s.storage, {s.tokens, s.sources_of(read)}));
    in_group = read.first_of_group ? 1 : in_group + 1;
    if (b.dh.size() < in_group) b.dh.push_back(arena.take(s.activation, {s.tokens, s.d}));
    for (int source : read.sources)
      if (kernels::Tensor& dsource = b.dsource[static_cast<std::size_t>(source)]; !dsource)
        dsource = arena.take(s.activation, {s.tokens, s.d});
  }
}

void take_head(Activations& act, kernels::Arena& arena, const Sizes& s) {
  arena.begin_part("logits");
  const std::int64_t vocab = s.config.vocab_size;
  act.head_rows = rows_of_head(s.tokens, vocab, kernels::size_of(s.activation), s.model.device);
  act.logits = arena.take(s.activation, {act.head_rows, vocab});
  act.dlogits = s.train && s.operand != s.activation ? arena.take(s.operand, {act.head_rows, vocab}) : act.logits;
}

void take_workspace(Activations& act, kernels::Arena& arena, const Sizes& s) {
  arena.begin_part("workspace");
  std::int64_t most_sources = 1;
  for (const Read& read : s.plan.reads) most_sources = std::max(most_sources, s.sources_of(read));
  const std::int64_t widest = std::max({s.d, s.f, s.attn_width, s.packed, 2 * s.f, s.config.vocab_size});
  const std::size_t bytes = kernels::workspace_bytes({.tokens = s.tokens,
                                                      .hidden_size = std::max({s.d, s.packed, 2 * s.f}),
                                                      .sources = most_sources,
                                                      .product_k = std::max(widest, s.tokens),
                                                      .product_n = widest,
                                                      .attention = s.shape},
                                                     s.model.device);
  act.workspace = arena.take(kernels::DType::f32, {static_cast<std::int64_t>((bytes + 3) / 4)});
}

}  // namespace

void Activations::take(kernels::Arena& arena, const ModelConfig& config, const ReadPlan& plan,
                       const ModelOptions& model, const kernels::AttentionShape& shape, bool train,
                       const PassOptions& options) {
  const Sizes sizes{config, plan, model, shape, train, options};
  take_reads(*this, arena, sizes);
  take_layers(*this, arena, sizes);
  if (train) take_backward(backward, arena, sizes);
  take_head(*this, arena, sizes);
  take_workspace(*this, arena, sizes);
}

}  // namespace routescope::model
