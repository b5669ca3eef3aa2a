// The parameters as ranks share them: which elements a rank updates, where their f32 masters are, and how an updated
// parameter reaches the other ranks. With zero = 1 this is ZeRO stage 1 (Rajbhandari et al., "ZeRO: Memory
// Optimizations Toward Training Trillion Parameter Models").
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/memory.h"
#include "kernels/stream.h"
#include "model/pass/model.h"
#include "train/optimizer/buckets.h"
#include "train/optimizer/settings.h"

namespace routescope::train {

/// A stretch of the matrices that this rank updates.
struct Share {
  Stretch elements;         // of the flat arrays (model/pass/parameters.h)
  std::int64_t offset = 0;  // where it begins in arrays that hold this rank's shares one after the other
};

/// What one of several ranks keeps of the matrices.
struct Holding {
  bool shares_only = false;  // it updates, and keeps state of, its share alone
  bool own_masters = false;  // the model gives up its f32 matrices; the rank keeps f32 masters of its share
};
Holding holding_of(const model::ModelOptions& options, const Sharding& sharding, int ranks);

/// zero = 1: a rank updates its pieces of the matrices' buckets (buckets.h). The updated parameters, or their bf16
/// copies, are all-gathered; that goes on until need() or finish(). With bf16 operands the model gives up its f32
/// matrices (Model::release_matrices()), and every rank keeps its pieces here. zero = 0: every rank holds and updates
/// everything. In both cases every rank updates all vectors, and a single rank holds everything in the model's own
/// array. The bits are the same for zero 0 and 1 and do not depend on bucket_mb.
class ShardedParameters {
 public:
  /// The model must outlive this object, must have its initial parameters, and must be laid out for as many shards as
  /// there are ranks. Whoever changes its parameters later calls publish().
  ShardedParameters(model::Model& model, kernels::Communicator& communicator, const Sharding& sharding);

  const model::Model& model() const { return model_; }
  kernels::Communicator& communicator() const { return communicator_; }
  const Buckets& buckets() const { return buckets_; }
  bool shares_only() const { return holding_.shares_only; }
  /// The matrices' elements that this rank updates, in the order of the flat arrays: with shares_only() the piece of
  /// every bucket, else one share of all matrices.
  const std::vector<Share>& shares() const { return shares_; }
  /// Elements of all shares together.
  std::int64_t share_elements() const { return share_elements_; }
  /// The f32 masters of a share, [elements of the share].
  kernels::Tensor masters(const Share& share) const;
  /// The f32 vectors, [total - matrices_end]; every rank has them all.
  kernels::Tensor vectors() const { return model_.vectors(); }

  /// Sums one step's gradients, laid out like the parameters, over ranks.
  GradientSum sum(kernels::Tensor gradients) const;
  /// After the sum's finish(): the sum of squares of this rank's part of the gradients. The total over ranks is the
  /// square of the norm of all gradients.
  double squares(kernels::Tensor gradients, const kernels::Stream& stream);

  /// The masters of shares()[share] were updated: starts to give every rank's model the parameters that follow from
  /// them. Call it for every share in order, on every rank.
  void publish_share(std::size_t share, const kernels::Stream& stream);
  /// Later work on `stream` finds the published matrices before `element`.
  void need(std::int64_t element, const kernels::Stream& stream);
  /// Later work on `stream` finds all published parameters. Everyone but train_step() calls it before using them.
  void finish(const kernels::Stream& stream);

  /// All masters were changed, for example read from a file: publishes all shares. Collective. The vectors must have
  /// been changed to the same values on every rank.
  void publish(const kernels::Stream& stream);
  /// All f32 masters [total], in host memory on rank 0 and nothing elsewhere. Collective.
  kernels::OwnedTensor gather(const kernels::Stream& stream);

 private:
  model::Model& model_;
  kernels::Communicator& communicator_;
  Holding holding_;
  Buckets buckets_;
  std::int64_t share_elements_;
  std::vector<Share> shares_;
  kernels::OwnedTensor masters_;                        // [share_elements_] with own_masters, else empty
  kernels::OwnedTensor squares_;                        // [1] f64
  std::vector<kernels::Communicator::Ticket> tickets_;  // of all-gathers, by bucket
  std::size_t arrived_ = 0;                             // buckets, from the first, that have been waited for
};

}  // namespace routescope::train
