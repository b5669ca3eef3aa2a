// The tensors of a pass: those that the forward pass keeps, those of the backward pass, and scratch for both.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/pass/pass.h"

namespace routescope::model {

/// Of read r (MATH.md, "Residual stream and reads"). Members that the residual mode does not have are undefined.
struct ReadActivations {
  kernels::AttnResState state;  // not routed: only partial and inv_rms
  kernels::Tensor x;            // operand [tokens, d]: the sublayer's input
  kernels::Tensor logit_bias;   // [1 or batch, n+1], a part of Activations::logit_bias
};

struct LayerActivations {
  kernels::Tensor qkv_raw;   // [tokens, packed]: before QK norm and RoPE
  kernels::Tensor qkv;       // [tokens, packed]
  kernels::Tensor lse;       // [batch, heads, seq_len]
  kernels::Tensor attn_out;  // operand [tokens, heads head_dim]
  kernels::Tensor gate_up;   // [tokens, 2 f]
  kernels::Tensor act;       // operand [tokens, f]
};

/// Only in a training pass.
struct BackwardScratch {
  kernels::Tensor dx;            // [tokens, d]: gradient of a sublayer's input
  kernels::Tensor dp;            // [tokens, d]: running gradient of the partial
  kernels::Tensor dy;            // operand [tokens, d]: dp as an operand; dp itself without bf16
  kernels::Tensor dattn_out;     // [tokens, heads head_dim]
  kernels::Tensor dqkv;          // [tokens, packed]
  kernels::Tensor dqkv_operand;  // operand; dqkv itself without bf16
  kernels::Tensor dact;          // [tokens, f]
  kernels::Tensor dgate_up;      // operand [tokens, 2 f]
  // By read: [tokens, d] where the read's partial is a completed source of some read.
  std::vector<kernels::Tensor> dsource;
  std::vector<kernels::Tensor> dh;      // by position in a group of reads: activation [tokens, d]
  std::vector<kernels::Tensor> dlogit;  // by read: [tokens, n+1]
};

struct Activations {
  kernels::Tensor ids;      // [tokens] i32
  kernels::Tensor targets;  // [tokens] i32
  kernels::Tensor nll;      // [tokens]
  kernels::Tensor loss;     // [1] f64: the nll summed since Pass::take_loss()
  // Of all routed reads, one after another (total_logit_bias()); in a pass that only infers, of each sequence.
  kernels::Tensor logit_bias;
  std::vector<ReadActivations> reads;
  // By position in a group of reads, for reads in two phases; `score` is undefined.
  std::vector<kernels::AttnResPrepared> prepared;
  std::vector<LayerActivations> layers;
  BackwardScratch backward;
  std::int64_t head_rows = 0;  // tokens whose logits exist at one time
  kernels::Tensor logits;      // [head_rows, vocab]
  kernels::Tensor dlogits;     // operand [head_rows, vocab]; logits itself without bf16
  kernels::Tensor workspace;   // bytes as f32

  /// Takes every tensor from the arena. A pass that only infers shares one layer's tensors among all layers.
  void take(kernels::Arena& arena, const ModelConfig& config, const ReadPlan& plan, const ModelOptions& model,
            const kernels::AttentionShape& shape, bool train, const PassOptions& options);
};

/// The last read of the group that `read` belongs to.
int last_of_group(const ReadPlan& plan, int read);
/// How many reads of a group a pass prepares (first phase) when it comes to `read`, the first of them: 0 where two
/// phases move more bytes or are not wanted, and where the sources hold the read's own partial.
int reads_to_prepare(const ReadPlan& plan, int read, const PassOptions& options, kernels::Device device);

}  // namespace routescope::model
