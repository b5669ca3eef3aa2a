#include "train/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "kernels/ops.h"

namespace routescope::train {

namespace {

/// Whether `after` begins in memory where `before` ends.
bool adjacent(const kernels::Tensor& before, const kernels::Tensor& after) {
  return after.data == static_cast<std::byte*>(before.data) + before.bytes();
}

/// Appends `next`, or makes the last range longer where elements and memory of both are adjacent.
void append(std::vector<StateRange>& ranges, StateRange next) {
  if (next.begin == next.end) return;
  if (ranges.empty() || ranges.back().end != next.begin || ranges.back().written != next.written ||
      !adjacent(ranges.back().parameters, next.parameters) ||
      !std::ranges::equal(ranges.back().state, next.state, adjacent)) {
    ranges.push_back(std::move(next));
    return;
  }
  StateRange& last = ranges.back();
  last.end = next.end;
  last.parameters.shape[0] = last.end - last.begin;
  for (kernels::Tensor& tensor : last.state) tensor.shape[0] = last.end - last.begin;
}

}  // namespace

Optimizer::Optimizer(model::Model& model, const OptimizerSettings& settings, kernels::Communicator& communicator,
                     const Sharding& sharding)
    : parameters_(model, communicator, sharding),
      rule_(make_update_rule(settings)),
      scale_(model.options().storage, model.options().device, {1}),
      squares_(kernels::DType::f64, model.options().device, {1}) {
  const std::int64_t elements = parameters_.share_elements() + parameters_.vectors().numel();
  for (std::size_t slot = 0; slot < rule_->slots().size(); ++slot)
    arrays_.emplace_back(model.options().storage, model.options().device,
                         std::initializer_list<std::int64_t>{elements});
  state_ = make_state();
}

std::vector<kernels::Tensor> Optimizer::state_of(std::int64_t begin, std::int64_t size) const {
  std::vector<kernels::Tensor> state;
  for (const kernels::OwnedTensor& array : arrays_) state.push_back(array.tensor.rows(begin, begin + size));
  return state;
}

OptimizerState Optimizer::make_state() const {
  const model::ParameterLayout& layout = parameters_.model().layout();
  OptimizerState out{.slots = rule_->slots(), .ranges = {}};
  const auto add = [&](Stretch elements, std::int64_t offset, kernels::Tensor parameters, bool written) {
    append(out.ranges, {.begin = elements.begin,
                        .end = elements.end,
                        .state = state_of(offset, elements.size()),
                        .parameters = parameters,
                        .written = written});
  };
  if (parameters_.shares_only()) {
    for (const Share& share : parameters_.shares()) add(share.elements, share.offset, parameters_.masters(share), true);
  } else {
    // Every rank holds all matrices and writes the pieces that would be its share.
    const Buckets& buckets = parameters_.buckets();
    const kernels::Tensor matrices = parameters_.masters(parameters_.shares().front());
    const auto add_held = [&](Stretch elements, bool written) {
      add(elements, elements.begin, elements.of(matrices), written);
    };
    for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
      const Stretch piece = buckets.piece(bucket);
      add_held({buckets[bucket].begin, piece.begin}, false);
      add_held(piece, true);
      add_held({piece.end, buckets[bucket].end}, false);
    }
  }
  add({layout.matrices_end(), layout.total()}, parameters_.share_elements(), parameters_.vectors(),
      parameters_.communicator().rank() == 0);
  return out;
}

bool Optimizer::finite(const kernels::Stream& stream) {
  // Squares of f32 numbers, added in f64, overflow only if one of the numbers is not finite.
  kernels::fill(squares_.tensor, 0.0, stream);
  for (const StateRange& range : state_.ranges) {
    kernels::sum_of_squares(squares_.tensor, range.parameters, stream);
    for (const kernels::Tensor& slot : range.state) kernels::sum_of_squares(squares_.tensor, slot, stream);
  }
  double sum = kernels::host_values<double>(squares_.tensor, stream).front();
  parameters_.communicator().all_reduce({&sum, 1}, kernels::Reduction::sum, "whether the weights are finite");
  return std::isfinite(sum);
}

void Optimizer::update(kernels::Tensor gradients, double scale, double learning_rate, std::int64_t step,
                       const kernels::Stream& stream) {
  parameters_.finish(stream);
  kernels::fill(scale_.tensor, scale, stream);
  const UpdateSpec spec{.step = step, .learning_rate = learning_rate, .scale = scale_.tensor};
  const auto update_elements = [&](kernels::Tensor masters, std::int64_t offset, kernels::Tensor sums, bool decayed) {
    const std::vector<kernels::Tensor> state = state_of(offset, masters.numel());
    rule_->update({.parameters = masters, .state = state, .gradients = sums, .decayed = decayed}, spec, stream);
  };
  const std::int64_t matrices_end = parameters_.model().layout().matrices_end();
  update_elements(parameters_.vectors(), parameters_.share_elements(), gradients.rows(matrices_end, gradients.numel()),
                  false);
  const std::vector<Share>& shares = parameters_.shares();
  for (std::size_t i = 0; i < shares.size(); ++i) {
    update_elements(parameters_.masters(shares[i]), shares[i].offset, shares[i].elements.of(gradients), true);
    parameters_.publish_share(i, stream);
  }
}

std::vector<kernels::Arena::Part> training_arrays(const model::ModelConfig& config, const model::ModelOptions& options,
                                                  const OptimizerSettings& settings, const Sharding& sharding,
                                                  int ranks) {
  const model::ParameterLayout layout(config, ranks);
  const Holding holding = holding_of(options, sharding, ranks);
  const std::int64_t matrices = layout.matrices_end(), vectors = layout.total() - matrices;
  const std::int64_t share = holding.shares_only ? matrices / ranks : matrices;
  const auto bytes = [](std::int64_t elements, kernels::DType type) {
    return static_cast<std::size_t>(elements) * kernels::size_of(type);
  };
  const bool copies = options.operands != options.storage;
  std::vector<kernels::Arena::Part> parts{{copies ? "parameters (f32 master)" : "parameters",
                                           bytes((holding.own_masters ? share : matrices) + vectors, options.storage)}};
  if (copies) parts.push_back({"parameters as bf16 operands", bytes(matrices, options.operands)});
  parts.push_back({"gradients", bytes(matrices + vectors, options.storage)});
  const std::size_t slots = make_update_rule(settings)->slots().size();
  parts.push_back({"optimizer state (" + settings.rule + ")", slots * bytes(share + vectors, options.storage)});
  return parts;
}

}  // namespace routescope::train
