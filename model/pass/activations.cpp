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
  // Rows of d that move: a fused read n sources, y and p in, p and x out; in two phases all n once and a row out for
  // each read, then that row, y and p in, p and x out.
  const auto n = static_cast<int>(first.sources.size());
  const bool fewer = n + reads + reads * 5 < reads * (n + 4);
  return device == kernels::Device::cuda && fewer ? reads : 0;
}

void Activations::take(kernels::Arena& arena, const ModelConfig& config, const ReadPlan& plan,
                       const ModelOptions& model, const kernels::AttentionShape& shape, bool train,
                       const PassOptions& options) {
  const kernels::DType storage = model.storage, operand = model.operands, activation = model.activations();
  const std::int64_t t = shape.tokens(), d = config.hidden_size, f = config.intermediate_size;
  const std::int64_t attn_width = shape.heads * shape.head_dim, packed = shape.packed_width();
  const auto sources_of = [&](const Read& read) { return static_cast<std::int64_t>(read.sources.size()) + 1; };
  const bool keep_x = train && options.recompute < Recompute::norms;
  const bool keep_attention = train && options.recompute < Recompute::attention;
  const bool keep_act = train && options.recompute < Recompute::swiglu;

  arena.begin_part("activations: residual stream");
  ids = arena.take(kernels::DType::i32, {t});
  targets = arena.take(kernels::DType::i32, {t});
  nll = arena.take(storage, {t});
  loss = arena.take(kernels::DType::f64, {1});
  std::int64_t biases = 0;
  for (const Read& read : plan.reads)
    if (read.routed) biases += sources_of(read);
  logit_bias = arena.take(storage, {biases});
  std::int64_t next_bias = 0;
  std::size_t most_prepared = 0;
  kernels::Tensor shared_x;
  for (std::size_t i = 0; i < plan.reads.size(); ++i) {
    const Read& read = plan.reads[i];
    ReadActivations r;
    r.state.partial = arena.take(activation, {t, d});
    r.state.inv_rms = arena.take(storage, {t});
    if (read.routed) {
      r.state.score = arena.take(storage, {t, sources_of(read)});
      r.state.alpha = arena.take(storage, {t, sources_of(read)});
      r.state.h_inv_rms = arena.take(storage, {t});
      r.logit_bias = logit_bias.slice(next_bias, {sources_of(read)});
      next_bias += sources_of(read);
      const int prepared_reads = reads_to_prepare(plan, static_cast<int>(i), options, model.device);
      most_prepared = std::max(most_prepared, static_cast<std::size_t>(prepared_reads));
    }
    if (keep_x || !shared_x) shared_x = arena.take(operand, {t, d});
    r.x = shared_x;
    reads.push_back(r);
  }
  for (std::size_t i = 0; i < most_prepared; ++i)
    prepared.push_back({.output = arena.take(activation, {t, d}), .lse = arena.take(storage, {t}), .score = {}});

  arena.begin_part("activations: attention and MLP");
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    LayerActivations l = layer > 0 ? layers.front() : LayerActivations{};
    const auto keep = [&](kernels::Tensor& tensor, bool kept, kernels::DType dtype,
                          std::initializer_list<std::int64_t> extents) {
      if (layer == 0 || kept) tensor = arena.take(dtype, extents);
    };
    keep(l.qkv_raw, train, activation, {t, packed});
    keep(l.qkv, keep_attention, activation, {t, packed});
    keep(l.lse, keep_attention, storage, {shape.batch, shape.heads, shape.seq_len});
    keep(l.attn_out, keep_attention, operand, {t, attn_width});
    keep(l.gate_up, train, activation, {t, 2 * f});
    keep(l.act, keep_act, operand, {t, f});
    layers.push_back(l);
  }

  if (train) {
    arena.begin_part("backward");
    BackwardScratch& b = backward;
    const bool cast = operand != activation;
    b.dx = arena.take(activation, {t, d});
    b.dp = arena.take(activation, {t, d});
    b.dy = cast ? arena.take(operand, {t, d}) : b.dp;
    b.dattn_out = arena.take(activation, {t, attn_width});
    b.dqkv = arena.take(activation, {t, packed});
    b.dqkv_operand = cast ? arena.take(operand, {t, packed}) : b.dqkv;
    b.dact = arena.take(activation, {t, f});
    b.dgate_up = arena.take(operand, {t, 2 * f});
    b.dsource.resize(plan.reads.size());
    std::size_t in_group = 0;
    for (const Read& read : plan.reads) {
      if (!read.routed) {
        b.dlogit.emplace_back();
        continue;
      }
      b.dlogit.push_back(arena.take(storage, {t, sources_of(read)}));
      in_group = read.first_of_group ? 1 : in_group + 1;
      if (b.dh.size() < in_group) b.dh.push_back(arena.take(activation, {t, d}));
      for (int source : read.sources)
        if (kernels::Tensor& dsource = b.dsource[static_cast<std::size_t>(source)]; !dsource)
          dsource = arena.take(activation, {t, d});
    }
  }

  arena.begin_part("logits");
  head_rows = rows_of_head(t, config.vocab_size, kernels::size_of(activation), model.device);
  logits = arena.take(activation, {head_rows, config.vocab_size});
  dlogits = train && operand != activation ? arena.take(operand, {head_rows, config.vocab_size}) : logits;

  arena.begin_part("workspace");
  std::int64_t most_sources = 1;
  for (const Read& read : plan.reads) most_sources = std::max(most_sources, sources_of(read));
  const std::size_t bytes =
      kernels::workspace_bytes({.tokens = t,
                                .hidden_size = std::max({d, packed, 2 * f}),
                                .sources = most_sources,
                                .product_k = std::max({d, f, attn_width, packed, 2 * f, config.vocab_size, t}),
                                .product_n = std::max({d, f, attn_width, packed, 2 * f, config.vocab_size}),
                                .attention = shape},
                               model.device);
  workspace = arena.take(kernels::DType::f32, {static_cast<std::int64_t>((bytes + 3) / 4)});
}

}  // namespace routescope::model
