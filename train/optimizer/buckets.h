// The matrices of the flat arrays in buckets, each of which one collective moves, and the sums of gradients over ranks,
// bucket by bucket.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace routescope::train {

/// A stretch [begin, end) of elements of a flat array (model/pass/parameters.h).
struct Stretch {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  kernels::Tensor of(kernels::Tensor flat) const { return flat.rows(begin, end); }
};

/// Every bucket has as many equal parts as there are ranks; part r belongs to rank r. So all ranks have shares of the
/// same size, whatever the sizes of the parameters.
class Buckets {
 public:
  /// Cuts [0, elements) into buckets of `mebibytes` MiB of f32, rounded down to a multiple of 16 elements a rank, and
  /// at least that. The last bucket may be smaller. One rank, which moves nothing, has one bucket. Throws
  /// std::invalid_argument if `elements` is not such a multiple (ModelOptions::shards).
  Buckets(std::int64_t elements, std::int64_t mebibytes, const kernels::Place& place);

  std::size_t size() const { return all_.size(); }
  const Stretch& operator[](std::size_t bucket) const { return all_[bucket]; }
  /// The part of a bucket that belongs to this rank.
  Stretch piece(std::size_t bucket) const;
  /// The number of elements that belong to this rank.
  std::int64_t owned() const;

 private:
  kernels::Place place_;
  std::vector<Stretch> all_;
};

/// The sums of one step's gradients over ranks. The sum of a bucket starts as soon as its gradients are complete. On
/// one rank nothing is done.
class GradientSum {
 public:
  /// `gradients` [total]: matrices in `buckets`, then vectors (a multiple of 16 elements a rank). Every rank gets the
  /// sums of all vectors, and of each bucket the sums of its piece, or of the whole bucket with `whole`.
  GradientSum(const Buckets& buckets, kernels::Tensor gradients, kernels::Communicator& communicator, bool whole);

  /// Earlier work on `stream` completes the matrices' gradients from `element` on; nobody may touch them until
  /// finish(). `element` falls from call to call.
  void complete_from(std::int64_t element, const kernels::Stream& stream);
  /// All gradients are complete. Later work on `stream` finds the sums.
  void finish(const kernels::Stream& stream);

 private:
  const Buckets& buckets_;
  kernels::Tensor gradients_;
  kernels::Communicator& communicator_;
  bool whole_;
  std::size_t left_;  // the first `left_` buckets are not yet being summed
  std::vector<kernels::Communicator::Ticket> tickets_;
};

}  // namespace routescope::train
