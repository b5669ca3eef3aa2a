// The matrices of the flat arrays cut into buckets, which one collective moves at a time, and the sums of gradients
// over ranks, bucket by bucket.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace routescope::train {

/// A stretch [begin, end) of elements of a flat array (model/parameters.h).
struct Stretch {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  kernels::Tensor of(kernels::Tensor flat) const { return flat.rows(begin, end); }
};

/// Rank r owns the r-th of `ranks` equal parts of every bucket, so that shares are equal on all ranks whatever the
/// sizes of the parameters.
class Buckets {
 public:
  /// [0, elements) in buckets of `mebibytes` MiB of f32, rounded down to a multiple of 16 elements a rank (and at least
  /// that); the last one may be smaller. One bucket where there is one rank, which moves nothing. Throws
  /// std::invalid_argument where `elements` is not such a multiple (ModelOptions::shards).
  Buckets(std::int64_t elements, std::int64_t mebibytes, const kernels::Place& place);

  std::size_t size() const { return all_.size(); }
  const Stretch& operator[](std::size_t bucket) const { return all_[bucket]; }
  /// This rank's part of a bucket.
  Stretch piece(std::size_t bucket) const;
  /// Elements of all its parts.
  std::int64_t owned() const;

 private:
  kernels::Place place_;
  std::vector<Stretch> all_;
};

/// The gradients of one step on their way to sums over ranks, which start as soon as a bucket is complete. On one rank
/// nothing is done.
class GradientSum {
 public:
  /// `gradients` [total]: matrices in `buckets`, then vectors (a multiple of 16 elements a rank), whose sums every rank
  /// gets. Of each bucket a rank gets the sums of its piece, or, with `whole`, of everything.
  GradientSum(const Buckets& buckets, kernels::Tensor gradients, kernels::Communicator& communicator, bool whole);

  /// What lies before `stream`'s next work has completed the matrices' gradients from `element` on, which then are
  /// nobody else's until finish(). Calls with a falling `element`.
  void complete_from(std::int64_t element, const kernels::Stream& stream);
  /// All gradients are complete; what follows on `stream` finds the sums.
  void finish(const kernels::Stream& stream);

 private:
  const Buckets& buckets_;
  kernels::Tensor gradients_;
  kernels::Communicator& communicator_;
  bool whole_;
  std::size_t left_;  // buckets whose sums have not been started: the first ones
  std::vector<kernels::Communicator::Ticket> tickets_;
};

}  // namespace routescope::train
