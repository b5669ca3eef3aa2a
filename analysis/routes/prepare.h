// Ablations of a set of routes as changes of a forward pass.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/routes/ablation.h"
#include "kernels/memory.h"
#include "model/pass/intervention.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// The means that `mean` and `freeze` use: over all probed tokens, under the intact model.
struct Reference {
  std::vector<double> alpha_mean;                // [reads, columns]
  std::vector<double> contribution_mean;         // [reads, columns] ProbeRow; NaN for a column that a read lacks
  std::vector<std::vector<double>> source_mean;  // [read of the plan][d]: of the read's partial, its current source
};

/// What a pass over the same sequences, or over sequences aligned with them, left for others to take from, by read of
/// the plan. An ablation needs what is said here; the rest may be empty.
struct KeptPass {
  std::vector<std::vector<double>> alpha;       // routed reads [tokens, n+1]; `patch`
  std::vector<std::vector<double>> logits;      // what the softmax took, likewise; keys of Donor::text, frozen
  std::vector<kernels::OwnedTensor> partial;    // [tokens, d]; values of Donor::text
  std::vector<kernels::OwnedTensor> on_device;  // alpha of routed reads as a tensor of the model; frozen
};

/// The sequences of a pass, as far as ablations need them.
struct BatchPlace {
  std::int64_t first_sequence = 0, sequences = 0, positions = 0;
  std::uint64_t seed = 1;            // of Donor::position
  const KeptPass* donors = nullptr;  // Donor::text: the aligned sequences
  /// The intact model on these sequences: every read from the first changed one on keeps the weights that it has there
  /// (MATH.md, "Routes as edges": frozen), but for what the ablation does to the set's own routes. Null: total effects.
  const KeptPass* frozen = nullptr;
  std::int64_t begin = 0;  // of both passes: the token where these sequences begin
  /// [sequences] how many tokens of each count: the rest is padding, which is no donor. Empty: all.
  std::span<const std::int64_t> lengths = {};
};

/// `resample`: the position, of `positions` >= 2, of another token of the sequence, uniform over them: a function of
/// the seed and the token's own place, the same for all reads and ablations.
std::int64_t resample_donor(std::uint64_t seed, std::int64_t sequence, std::int64_t position, std::int64_t positions);

/// The most completed sources and means together of one read on CUDA (kernels/cuda/reads/read.h).
inline constexpr std::size_t most_cuda_sources = 128;
/// What changes values gives a read one further source for each of its routes among `routes`: their weights differ from
/// token to token, so that one sum of their means cannot replace them. CUDA limits the number of sources (a read of a
/// model with 33 or more layers and a source for each sublayer may need more). Throws Error naming the set, the
/// ablation and the first read with too many.
void expect_room_for_means(const model::ReadPlan& plan, kernels::Device device, Ablation ablation,
                           const std::string& set, std::span<const GatedRoute> routes);

/// An intervention ready for Pass::forward(), with the tensors that it refers to.
struct PreparedAblation {
  model::RoutingIntervention intervention;
  std::vector<kernels::OwnedTensor> owned;
  std::vector<int> changed_reads;
};
/// Routes are sorted by read, each at most once. Throws std::invalid_argument if the reference or the donors that the
/// ablation needs are missing.
PreparedAblation prepare_ablation(const model::Model& model, Ablation ablation, std::span<const GatedRoute> routes,
                                  const Reference& reference, const BatchPlace& place);

}  // namespace routescope::analysis
