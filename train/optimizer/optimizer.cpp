#include "train/optimizer/optimizer.h"

#include <string>

#include "kernels/ops.h"

namespace routescope::train {

namespace {

/// Whether a rank of so many holds a share of the matrices' state only, and whether it lets go of the f32 matrices.
struct Sharding {
  bool sharded, released;
};
Sharding sharding_of(const model::ModelOptions& options, const TrainConfig::Distributed& distributed, int ranks) {
  const bool sharded = distributed.zero == 1 && ranks > 1;
  return {sharded, sharded && options.operands == kernels::DType::bf16};
}

}  // namespace

AdamW::AdamW(model::Model& model, const TrainConfig::Optimizer& settings, kernels::Communicator& communicator,
             const TrainConfig::Distributed& distributed)
    : model_(model),
      settings_(settings),
      communicator_(communicator),
      sharded_(sharding_of(model.options(), distributed, communicator.size()).sharded),
      buckets_(model.layout().matrices_end(), distributed.bucket_mb, communicator.place()),
      matrices_state_(sharded_ ? buckets_.owned() : model.layout().matrices_end()),
      tickets_(buckets_.size(), 0),
      arrived_(buckets_.size()) {
  const model::ParameterLayout& layout = model.layout();
  const model::ModelOptions& options = model.options();
  const kernels::Stream stream{.device = options.device};
  if (!sharded_) {
    shares_.push_back({{0, layout.matrices_end()}, 0});
  } else {
    std::int64_t state = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      shares_.push_back({buckets_.piece(bucket), state});
      state += shares_.back().elements.size();
    }
  }
  if (sharding_of(options, distributed, communicator.size()).released) {
    masters_ = kernels::OwnedTensor(options.storage, options.device, {matrices_state_});
    for (const Share& share : shares_) kernels::copy(masters(share), share.elements.of(model.flat()), stream);
    kernels::synchronize(stream);
    model.release_matrices();
  }
  const std::int64_t state = matrices_state_ + layout.total() - layout.matrices_end();
  exp_avg_ = kernels::OwnedTensor(options.storage, options.device, {state});
  exp_avg_sq_ = kernels::OwnedTensor(options.storage, options.device, {state});
  squares_ = kernels::OwnedTensor(kernels::DType::f64, options.device, {1});
  scale_ = kernels::OwnedTensor(options.storage, options.device, {1});
  ranges_ = make_ranges();
}

kernels::Tensor AdamW::masters(const Share& share) const {
  return masters_.tensor ? masters_.tensor.rows(share.state, share.state + share.elements.size())
                         : share.elements.of(model_.flat());
}

std::vector<OptimizerRange> AdamW::make_ranges() const {
  std::vector<OptimizerRange> out;
  const auto add = [&](Stretch elements, std::int64_t state, kernels::Tensor parameters, bool written) {
    if (elements.size() == 0) return;
    OptimizerRange range{.begin = elements.begin,
                         .end = elements.end,
                         .exp_avg = exp_avg_.tensor.rows(state, state + elements.size()),
                         .exp_avg_sq = exp_avg_sq_.tensor.rows(state, state + elements.size()),
                         .parameters = parameters,
                         .written = written};
    const auto follows = [](const kernels::Tensor& after, const kernels::Tensor& before) {
      return after.data == static_cast<std::byte*>(before.data) + before.bytes();
    };
    if (!out.empty() && out.back().end == range.begin && out.back().written == written &&
        follows(range.exp_avg, out.back().exp_avg) && follows(range.parameters, out.back().parameters)) {
      OptimizerRange& last = out.back();
      last.end = range.end;
      for (kernels::Tensor* tensor : {&last.exp_avg, &last.exp_avg_sq, &last.parameters})
        tensor->shape[0] = last.end - last.begin;
    } else {
      out.push_back(range);
    }
  };
  const bool first = communicator_.rank() == 0;
  if (sharded_) {
    for (const Share& share : shares_) add(share.elements, share.state, masters(share), true);
  } else {
    // Everybody has everything and writes its pieces.
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      const Stretch piece = buckets_.piece(bucket);
      const auto held = [&](std::int64_t begin, std::int64_t end, bool written) {
        add({begin, end}, begin, model_.flat().rows(begin, end), written);
      };
      held(buckets_[bucket].begin, piece.begin, false);
      held(piece.begin, piece.end, true);
      held(piece.end, buckets_[bucket].end, false);
    }
  }
  add({model_.layout().matrices_end(), model_.layout().total()}, matrices_state_, model_.vectors(), first);
  return out;
}

GradientSum AdamW::sum(kernels::Tensor gradients) const {
  return GradientSum(buckets_, gradients, communicator_, !sharded_);
}

double AdamW::squares(kernels::Tensor gradients, const kernels::Stream& stream) {
  // Also where this rank has all sums it adds up its own pieces alone, so that the bits are the same.
  fill(squares_.tensor, 0.0, stream);
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket)
    kernels::sum_of_squares(squares_.tensor, buckets_.piece(bucket).of(gradients), stream);
  if (communicator_.rank() == 0)
    kernels::sum_of_squares(squares_.tensor, gradients.rows(model_.layout().matrices_end(), gradients.numel()), stream);
  return kernels::host_values<double>(squares_.tensor, stream).front();
}

void AdamW::update(kernels::Tensor gradients, double scale, double learning_rate, std::int64_t step,
                   const kernels::Stream& stream) {
  finish(stream);
  kernels::fill(scale_.tensor, scale, stream);
  kernels::AdamWParams params{.learning_rate = learning_rate,
                              .beta1 = settings_.beta1,
                              .beta2 = settings_.beta2,
                              .eps = settings_.eps,
                              .weight_decay = 0,
                              .step = step};
  const auto moments = [&](const kernels::OwnedTensor& of, std::int64_t begin, std::int64_t size) {
    return of.tensor.rows(begin, begin + size);
  };
  const kernels::Tensor vectors = model_.vectors();
  kernels::adamw(vectors, moments(exp_avg_, matrices_state_, vectors.numel()),
                 moments(exp_avg_sq_, matrices_state_, vectors.numel()),
                 gradients.rows(model_.layout().matrices_end(), gradients.numel()), scale_.tensor, params, stream);
  params.weight_decay = settings_.weight_decay;
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    const Share& share = shares_[i];
    kernels::adamw(masters(share), moments(exp_avg_, share.state, share.elements.size()),
                   moments(exp_avg_sq_, share.state, share.elements.size()), share.elements.of(gradients),
                   scale_.tensor, params, stream);
    publish_share(i, stream);
  }
  if (sharded_) arrived_ = 0;
}

void AdamW::publish_share(std::size_t share, const kernels::Stream& stream) {
  const kernels::Tensor matrices = model_.operand_matrices();
  const kernels::Tensor piece = shares_[share].elements.of(matrices);
  if (model_.options().operands == kernels::DType::bf16) kernels::cast(piece, masters(shares_[share]), stream);
  if (sharded_)
    tickets_[share] = communicator_.all_gather(buckets_[share].of(matrices), piece, stream,
                                               "parameters, bucket " + std::to_string(share));
}

void AdamW::need(std::int64_t element, const kernels::Stream& stream) {
  for (; arrived_ < buckets_.size() && buckets_[arrived_].begin < element; ++arrived_)
    communicator_.wait(tickets_[arrived_], stream);
}

void AdamW::finish(const kernels::Stream& stream) {
  need(model_.layout().matrices_end(), stream);
}

void AdamW::publish(const kernels::Stream& stream) {
  finish(stream);
  for (std::size_t i = 0; i < shares_.size(); ++i) publish_share(i, stream);
  if (sharded_) arrived_ = 0;
  finish(stream);
}

kernels::OwnedTensor AdamW::gather_parameters(const kernels::Stream& stream) {
  finish(stream);
  const model::ParameterLayout& layout = model_.layout();
  const bool here = communicator_.rank() == 0;
  kernels::OwnedTensor out;
  if (here) out = kernels::OwnedTensor(model_.options().storage, kernels::Device::cpu, {layout.total()});
  if (!masters_.tensor) {
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

std::vector<kernels::Arena::Part> training_arrays(const model::ModelConfig& config, const model::ModelOptions& options,
                                                  const TrainConfig::Distributed& distributed, int ranks) {
  const model::ParameterLayout layout(config, ranks);
  const auto [sharded, released] = sharding_of(options, distributed, ranks);
  const std::int64_t matrices = layout.matrices_end(), vectors = layout.total() - matrices;
  const std::int64_t held = sharded ? matrices / ranks : matrices;
  const auto bytes = [](std::int64_t elements, kernels::DType type) {
    return static_cast<std::size_t>(elements) * kernels::size_of(type);
  };
  const bool copies = options.operands != options.storage;
  std::vector<kernels::Arena::Part> parts{{copies ? "parameters (f32 master)" : "parameters",
                                           bytes((released ? held : matrices) + vectors, options.storage)}};
  if (copies) parts.push_back({"parameters as bf16 operands", bytes(matrices, options.operands)});
  parts.push_back({"gradients", bytes(matrices + vectors, options.storage)});
  parts.push_back({"moments (AdamW)", 2 * bytes(held + vectors, options.storage)});
  return parts;
}

}  // namespace routescope::train
