#include "train/optimizer/sharded_parameters.h"

#include <string>

#include "kernels/ops.h"

namespace routescope::train {

Holding holding_of(const model::ModelOptions& options, const Sharding& sharding, int ranks) {
  const bool shares_only = sharding.zero == 1 && ranks > 1;
  return {.shares_only = shares_only, .own_masters = shares_only && options.operands == kernels::DType::bf16};
}

ShardedParameters::ShardedParameters(model::Model& model, kernels::Communicator& communicator, const Sharding& sharding)
    : model_(model),
      communicator_(communicator),
      holding_(holding_of(model.options(), sharding, communicator.size())),
      buckets_(model.layout().matrices_end(), sharding.bucket_mb, communicator.place()),
      share_elements_(holding_.shares_only ? buckets_.owned() : model.layout().matrices_end()),
      squares_(kernels::DType::f64, model.options().device, {1}),
      tickets_(buckets_.size(), 0),
      arrived_(buckets_.size()) {
  if (!holding_.shares_only) {
    shares_.push_back({{0, model.layout().matrices_end()}, 0});
  } else {
    std::int64_t offset = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      shares_.push_back({buckets_.piece(bucket), offset});
      offset += shares_.back().elements.size();
    }
  }
  if (holding_.own_masters) {
    const kernels::Stream stream{.device = model.options().device};
    masters_ = kernels::OwnedTensor(model.options().storage, model.options().device, {share_elements_});
    for (const Share& share : shares_) kernels::copy(masters(share), share.elements.of(model.flat()), stream);
    kernels::synchronize(stream);
    model.release_matrices();
  }
}

kernels::Tensor ShardedParameters::masters(const Share& share) const {
  return holding_.own_masters ? masters_.tensor.rows(share.offset, share.offset + share.elements.size())
                              : share.elements.of(model_.flat());
}

GradientSum ShardedParameters::sum(kernels::Tensor gradients) const {
  return GradientSum(buckets_, gradients, communicator_, !holding_.shares_only);
}

double ShardedParameters::squares(kernels::Tensor gradients, const kernels::Stream& stream) {
  // A rank adds up its own pieces alone even where it has all sums, so that the bits are the same for zero 0 and 1.
  kernels::fill(squares_.tensor, 0.0, stream);
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket)
    kernels::sum_of_squares(squares_.tensor, buckets_.piece(bucket).of(gradients), stream);
  if (communicator_.rank() == 0)
    kernels::sum_of_squares(squares_.tensor, gradients.rows(model_.layout().matrices_end(), gradients.numel()), stream);
  return kernels::host_values<double>(squares_.tensor, stream).front();
}

void ShardedParameters::publish_share(std::size_t share, const kernels::Stream& stream) {
  const kernels::Tensor matrices = model_.operand_matrices();
  const kernels::Tensor piece = shares_[share].elements.of(matrices);
  if (model_.options().operands == kernels::DType::bf16) kernels::cast(piece, masters(shares_[share]), stream);
  if (!holding_.shares_only) return;
  tickets_[share] = communicator_.all_gather(buckets_[share].of(matrices), piece, stream,
                                             "parameters, bucket " + std::to_string(share));
  arrived_ = 0;
}

void ShardedParameters::need(std::int64_t element, const kernels::Stream& stream) {
  for (; arrived_ < buckets_.size() && buckets_[arrived_].begin < element; ++arrived_)
    communicator_.wait(tickets_[arrived_], stream);
}

void ShardedParameters::finish(const kernels::Stream& stream) {
  need(model_.layout().matrices_end(), stream);
}

void ShardedParameters::publish(const kernels::Stream& stream) {
  finish(stream);
  for (std::size_t share = 0; share < shares_.size(); ++share) publish_share(share, stream);
  finish(stream);
}

kernels::OwnedTensor ShardedParameters::gather(const kernels::Stream& stream) {
  finish(stream);
  const model::ParameterLayout& layout = model_.layout();
  const bool here = communicator_.rank() == 0;
  kernels::OwnedTensor out;
  if (here) out = kernels::OwnedTensor(model_.options().storage, kernels::Device::cpu, {layout.total()});
  if (!holding_.own_masters) {
    if (here) kernels::copy(out.tensor, model_.flat(), stream);
  } else {
    kernels::OwnedTensor whole(model_.options().storage, model_.options().device, {buckets_[0].size()});
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      const kernels::Tensor all = whole.tensor.rows(0, buckets_[bucket].size());
      communicator_.wait(communicator_.all_gather(all, masters(shares_[bucket]), stream,
                                                  "master weights, bucket " + std::to_string(bucket)),
                         stream);
      if (here) kernels::copy(buckets_[bucket].of(out.tensor), all, stream);
    }
    if (here) kernels::copy(out.tensor.rows(layout.matrices_end(), layout.total()), model_.vectors(), stream);
  }
  kernels::synchronize(stream);
  return out;
}

}  // namespace routescope::train
