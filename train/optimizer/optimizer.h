// AdamW over the flat parameter array, each rank its share of it (ZeRO-1: Rajbhandari et al., "ZeRO: Memory
// Optimizations Toward Training Trillion Parameter Models", stage 1): matrices and the embedding are decayed; gains,
// biases and routing queries are not.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/memory.h"
#include "kernels/stream.h"
#include "model/pass/model.h"
#include "train/config/config.h"
#include "train/optimizer/buckets.h"

namespace routescope::train {

/// A stretch of the flat arrays whose optimizer state this rank holds.
struct OptimizerRange {
  std::int64_t begin = 0, end = 0;      // elements of the flat arrays (model/parameters.h)
  kernels::Tensor exp_avg, exp_avg_sq;  // [end - begin], of the storage type
  kernels::Tensor parameters;           // [end - begin]: the master weights
  bool written = true;                  // by this rank into checkpoints; every element is by exactly one
};

/// The moments, and the master weights where the model does not have them.
///
/// zero 1: a rank updates its pieces of the matrices' buckets (buckets.h) and holds their moments; the updated
/// parameters, or their bf16 copies, are all-gathered, which goes on until need() or finish(). With bf16 operands the
/// model lets go of its f32 matrices (Model::release_matrices()), of which each rank keeps its pieces here. zero 0:
/// every rank holds and updates everything. The vectors are updated by every rank. One rank holds everything in
/// either case, in the model's own array. The bits are the same for zero 0 and 1 and do not depend on bucket_mb.
class AdamW {
 public:
  /// Moments of zero. The model, which outlives it, has its initial parameters already and is laid out for as many
  /// shards as there are ranks; later changes of its parameters from outside need publish().
  AdamW(model::Model& model, const TrainConfig::Optimizer& settings, kernels::Communicator& communicator,
        const TrainConfig::Distributed& distributed);

  /// What sums one step's gradients, flat like the parameters, over ranks.
  GradientSum sum(kernels::Tensor gradients) const;
  /// After the sum's finish(): the sum of squares of this rank's part of the gradients. Added up over ranks it is the
  /// square of the norm of all gradients.
  double squares(kernels::Tensor gradients, const kernels::Stream& stream);
  /// Update number `step` (1, 2, ...) with `scale` times the summed gradients. Returns while parameters may be under
  /// way between ranks.
  void update(kernels::Tensor gradients, double scale, double learning_rate, std::int64_t step,
              const kernels::Stream& stream);

  /// What follows on `stream` finds the matrices' parameters before `element` updated.
  void need(std::int64_t element, const kernels::Stream& stream);
  /// What follows on `stream` finds all parameters updated. To be called before anybody but train_step() uses them.
  void finish(const kernels::Stream& stream);

  /// The master weights in ranges() were changed (read from a file): gives every rank's model what follows from them.
  /// Collective. The vectors must have been changed to the same values on every rank.
  void publish(const kernels::Stream& stream);
  /// All master weights [total] in the storage type and host memory on rank 0, nothing elsewhere. Collective.
  kernels::OwnedTensor gather_parameters(const kernels::Stream& stream);

  /// What this rank holds, in the order of the flat arrays. Ranges of neighbouring elements are one where `written`
  /// and the memory allow.
  const std::vector<OptimizerRange>& ranges() const { return ranges_; }

 private:
  /// A stretch of the matrices that this rank updates, and where its moments (and masters) begin.
  struct Share {
    Stretch elements;
    std::int64_t state = 0;
  };
  kernels::Tensor masters(const Share& share) const;
  /// The model's parameters follow from the masters of a share, on all ranks.
  void publish_share(std::size_t share, const kernels::Stream& stream);
  std::vector<OptimizerRange> make_ranges() const;

  model::Model& model_;
  TrainConfig::Optimizer settings_;
  kernels::Communicator& communicator_;
  bool sharded_;
  Buckets buckets_;
  std::vector<Share> shares_;                  // sharded: the piece of every bucket; else one of all matrices
  std::int64_t matrices_state_;                // elements of moments of matrices; those of vectors follow
  kernels::OwnedTensor masters_;               // [matrices_state_] where the model has let go of its own
  kernels::OwnedTensor exp_avg_, exp_avg_sq_;  // [matrices_state_ + vectors]
  kernels::OwnedTensor squares_, scale_;       // [1] f64, [1]
  std::vector<OptimizerRange> ranges_;
  std::vector<kernels::Communicator::Ticket> tickets_;  // of all-gathers, by bucket
  std::size_t arrived_ = 0;                             // buckets, from the first, that have been waited for
};

/// The arrays as long as the parameters that a rank of so many holds while it trains: parameters, their bf16 copies,
/// gradients, moments. Bytes that collectives take for themselves are the communicator's.
std::vector<kernels::Arena::Part> training_arrays(const model::ModelConfig& config, const model::ModelOptions& options,
                                                  const TrainConfig::Distributed& distributed, int ranks);

}  // namespace routescope::train
