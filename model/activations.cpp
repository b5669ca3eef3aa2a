#include "model/activations.h"

#include <algorithm>

namespace routescope {

namespace {

// Logits of at most this many bytes exist at one time; more rows a product make it faster, up to about this size.
constexpr std::int64_t kLogitsBytes = std::int64_t{512} << 20;

std::int64_t rows_of_head(std::int64_t tokens, std::int64_t vocab, std::size_t element) {
  const std::int64_t most = std::max<std::int64_t>(16, kLogitsBytes / (vocab * static_cast<std::int64_t>(element)));
  const std::int64_t chunks = (tokens + most - 1) / most;
  return (tokens + chunks - 1) / chunks;  // chunks of equal height
}

}  // namespace

void Activations::take(Arena& arena, const Model& model, const AttentionShape& shape, bool train) {
  const ModelConfig& config = model.config();
  const ReadPlan& plan = model.plan();
  const DType storage = model.options().storage, operand = model.options().operands;
  const std::int64_t t = shape.tokens(), d = config.hidden_size, f = config.intermediate_size;
  const std::int64_t attn_width = shape.heads * shape.head_dim, packed = shape.packed_width();
  const auto sources_of = [&](const Read& read) { return static_cast<std::int64_t>(read.sources.size()) + 1; };

  arena.begin_part("activations: residual stream");
  ids = arena.take(DType::i32, {t});
  targets = arena.take(DType::i32, {t});
  nll = arena.take(storage, {t});
  Tensor shared_x;
  for (const Read& read : plan.reads) {
    ReadActivations r;
    r.state.partial = arena.take(storage, {t, d});
    r.state.inv_rms = arena.take(storage, {t});
    if (read.routed) {
      r.state.score = arena.take(storage, {t, sources_of(read)});
      r.state.alpha = arena.take(storage, {t, sources_of(read)});
      r.state.h_inv_rms = arena.take(storage, {t});
      r.logit_bias = arena.take(storage, {sources_of(read)});
    }
    if (train || !shared_x) shared_x = arena.take(operand, {t, d});
    r.x = shared_x;
    reads.push_back(r);
  }

  arena.begin_part("activations: attention and MLP");
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!train && layer > 0) {
      layers.push_back(layers.front());
      continue;
    }
    layers.push_back({.qkv_raw = arena.take(storage, {t, packed}),
                      .qkv = arena.take(storage, {t, packed}),
                      .lse = arena.take(storage, {shape.batch, shape.heads, shape.seq_len}),
                      .attn_out = arena.take(operand, {t, attn_width}),
                      .gate_up = arena.take(storage, {t, 2 * f}),
                      .act = arena.take(operand, {t, f})});
  }

  if (train) {
    arena.begin_part("backward");
    BackwardScratch& b = backward;
    const bool cast = operand != storage;
    b.dx = arena.take(storage, {t, d});
    b.dp = arena.take(storage, {t, d});
    b.dy = cast ? arena.take(operand, {t, d}) : b.dp;
    b.dattn_out = arena.take(storage, {t, attn_width});
    b.dqkv = arena.take(storage, {t, packed});
    b.dqkv_operand = cast ? arena.take(operand, {t, packed}) : b.dqkv;
    b.dact = arena.take(storage, {t, f});
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
      if (b.dh.size() < in_group) b.dh.push_back(arena.take(storage, {t, d}));
      for (int source : read.sources)
        if (Tensor& dsource = b.dsource[static_cast<std::size_t>(source)]; !dsource)
          dsource = arena.take(storage, {t, d});
    }
  }

  arena.begin_part("logits");
  head_rows = rows_of_head(t, config.vocab_size, size_of(storage));
  logits = arena.take(storage, {head_rows, config.vocab_size});
  dlogits = train && operand != storage ? arena.take(operand, {head_rows, config.vocab_size}) : logits;

  arena.begin_part("workspace");
  std::int64_t most_sources = 1;
  for (const Read& read : plan.reads) most_sources = std::max(most_sources, sources_of(read));
  const std::size_t bytes =
      workspace_bytes({.tokens = t,
                       .hidden_size = std::max({d, packed, 2 * f}),
                       .sources = most_sources,
                       .product_k = std::max({d, f, attn_width, packed, 2 * f, config.vocab_size, t}),
                       .product_n = std::max({d, f, attn_width, packed, 2 * f, config.vocab_size}),
                       .attention = shape},
                      model.options().device);
  workspace = arena.take(DType::f32, {static_cast<std::int64_t>((bytes + 3) / 4)});
}

}  // namespace routescope
