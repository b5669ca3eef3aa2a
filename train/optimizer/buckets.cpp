#include "train/optimizer/buckets.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace routescope::train {

namespace {

constexpr std::int64_t kAlignment = 16;  // elements, as in ParameterLayout
constexpr std::int64_t kElementsPerMebibyte = (std::int64_t{1} << 20) / 4;

Stretch part_of(const Stretch& whole, const kernels::Place& place) {
  const std::int64_t size = whole.size() / place.size;
  return {whole.begin + place.rank * size, whole.begin + (place.rank + 1) * size};
}

}  // namespace

Buckets::Buckets(std::int64_t elements, std::int64_t mebibytes, const kernels::Place& place) : place_(place) {
  const std::int64_t unit = kAlignment * place.size;
  if (elements % unit != 0)
    throw std::invalid_argument("buckets: found " + std::to_string(elements) + " elements, expected a multiple of " +
                                std::to_string(unit) + " (ModelOptions::shards)");
  const std::int64_t most =
      place.size == 1 ? std::max(unit, elements) : std::max(unit, mebibytes * kElementsPerMebibyte / unit * unit);
  for (std::int64_t begin = 0; begin < elements; begin += most)
    all_.push_back({begin, std::min(begin + most, elements)});
}

Stretch Buckets::piece(std::size_t bucket) const {
  return part_of(all_[bucket], place_);
}

std::int64_t Buckets::owned() const {
  return all_.empty() ? 0 : all_.back().end / place_.size;
}

GradientSum::GradientSum(const Buckets& buckets, kernels::Tensor gradients, kernels::Communicator& communicator,
                         bool whole)
    : buckets_(buckets),
      gradients_(gradients),
      communicator_(communicator),
      whole_(whole),
      left_(communicator.size() == 1 ? 0 : buckets.size()),
      tickets_(buckets.size(), 0) {}

void GradientSum::complete_from(std::int64_t element, const kernels::Stream& stream) {
  // From the last bucket to the first, as the backward pass completes them; the order is the same on every rank.
  while (left_ > 0 && buckets_[left_ - 1].begin >= element) {
    --left_;
    tickets_[left_] = communicator_.reduce_scatter(buckets_.piece(left_).of(gradients_), buckets_[left_].of(gradients_),
                                                   stream, "gradients, bucket " + std::to_string(left_));
  }
}

void GradientSum::finish(const kernels::Stream& stream) {
  if (communicator_.size() == 1) return;
  complete_from(0, stream);
  const Stretch vectors{buckets_.size() == 0 ? 0 : buckets_[buckets_.size() - 1].end, gradients_.numel()};
  const kernels::Tensor vector_piece = part_of(vectors, communicator_.place()).of(gradients_);
  const kernels::Communicator::Ticket vector_sums =
      communicator_.reduce_scatter(vector_piece, vectors.of(gradients_), stream, "gradients of vectors");
  for (std::size_t bucket = buckets_.size(); bucket-- > 0;) {
    communicator_.wait(tickets_[bucket], stream);
    if (whole_)
      tickets_[bucket] =
          communicator_.all_gather(buckets_[bucket].of(gradients_), buckets_.piece(bucket).of(gradients_), stream,
                                   "sums of gradients, bucket " + std::to_string(bucket));
  }
  communicator_.wait(vector_sums, stream);
  const kernels::Communicator::Ticket all_vector_sums =
      communicator_.all_gather(vectors.of(gradients_), vector_piece, stream, "sums of the gradients of vectors");
  if (whole_)
    for (std::size_t bucket = buckets_.size(); bucket-- > 0;) communicator_.wait(tickets_[bucket], stream);
  communicator_.wait(all_vector_sums, stream);
}

}  // namespace routescope::train
