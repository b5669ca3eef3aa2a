// Masses and effects by writing sublayer, in every residual mode, so that modes can be compared (MATH.md, "Routes as
// edges": Writers). Writer 0 is the embedding, writer w the sublayer that read w - 1 feeds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/identity.h"
#include "analysis/results/row.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// "embedding", "0.attn", "0.mlp", ...: as many as the plan has reads, the final one included.
std::vector<std::string> writer_names(const model::ReadPlan& plan);
/// The names of all reads.
std::vector<std::string> reader_names(const model::ReadPlan& plan);

/// omega [writers] of one token of a read: the weights of all sources that hold the writer's output, summed. alpha
/// [sources], in the order of the read's columns; empty for a read that is not routed, which is all of its partial.
std::vector<double> writer_weights(const model::ReadPlan& plan, int read, std::span<const double> alpha);

/// `model` in f32 or f64, of any residual mode, on text. Of the identity the tokens and the settings' seed count.
/// `margin`: nats a token, as ProbeRow's. Ranks share the sequences. Holds the outputs of all sublayers of a batch on
/// the host, in f64. `step` tells the resampling of one row from that of another. Throws Error for tokens that do not
/// fit the model, and for a read without room for one more source on CUDA.
Writers measure_writers(const model::Model& model, const ProbeIdentity& identity, std::int64_t step, double margin,
                        kernels::Communicator& communicator, std::size_t batch_bytes = default_batch_bytes);

/// A line for each writer: mean contribution over the reads behind it, contribution to the final read, effects with
/// intervals and adjusted p values; then the embedding's part of sources, where a model has any; then the cost.
std::string writers_table(const Writers& writers, const model::ReadPlan& plan);

}  // namespace routescope::analysis
