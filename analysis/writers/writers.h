// Masses and effects by writing sublayer, in every residual mode, so that modes can be compared (MATH.md, "Routes as
// edges": Writers). Writer 0 is the embedding, writer w the sublayer that read w - 1 feeds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/probe_tokens.h"
#include "analysis/results/row.h"
#include "analysis/results/settings.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// "embedding", "0.attn", "0.mlp", ...: as many as the plan has reads, the final one included.
std::vector<std::string> writer_names(const model::ReadPlan& plan);

/// omega [writers] of one token of a read: the weights of all sources that hold the writer's output, summed. alpha
/// [sources], in the order of the read's columns; empty for a read that is not routed, which is all of its partial.
std::vector<double> writer_weights(const model::ReadPlan& plan, int read, std::span<const double> alpha);

/// Means over all tokens, under the intact model, of all reads of the plan: those that are not routed too.
struct WriterMasses {
  /// [reads, writers] omega_r[j] <y_j, h_r> / |h_r|^2, and |omega_r[j] y_j| / sum_k |omega_r[k] y_k|: both sum to one
  /// over the writers of a read. Where a divisor is 0 omega over its sum takes their place. NaN for a writer behind the
  /// read.
  std::vector<double> contribution, norm_mass;
  /// [routed reads, columns] the part of a source's contribution (ProbeRow::contribution_mean) that is the embedding's:
  /// all of it for block_sum's embedding, 0 for its other sources. NaN for a column that a read lacks.
  std::vector<double> embedding_part;
};

struct Writers {
  WriterMasses masses;
  /// Of `zero` on each writer, in the order of the writers: y_j's term out of every read behind it. The weights of the
  /// next reads respond as their sources change, whose keys still hold y_j. The embedding is not tested (coverage 0,
  /// NaN): without it nothing is left of the first reads but rounding, which every RMSNorm enlarges, so that there is
  /// no such number.
  AblationEffects effects;
  double intact_nll = nan;
  double passes = nan;  // plain forward passes, counted as ProbeCost counts; one of them is intact
  double seconds = nan;
};

/// `model` in f32 or f64, of any residual mode. Of the settings the seed and the margin count. Ranks share the
/// sequences. Holds the outputs of all sublayers of a batch on the host, in f64. `step` tells the resampling of one row
/// from that of another. Throws Error for tokens that do not fit the model, and for a read without room for one more
/// source on CUDA.
Writers measure_writers(const model::Model& model, const ProbeTokens& tokens, const ProbeSettings& settings,
                        std::int64_t step, kernels::Communicator& communicator,
                        std::size_t batch_bytes = default_batch_bytes);

/// A line for each writer: mean contribution over the reads behind it, contribution to the final read, effect with
/// interval and adjusted p value; then the embedding's part of sources, where a model has any; then the cost.
std::string writers_table(const Writers& writers, const model::ReadPlan& plan);

}  // namespace routescope::analysis
