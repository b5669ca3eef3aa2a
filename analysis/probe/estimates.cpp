#include "analysis/probe/estimates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "kernels/random.h"
#include "model/pass/pass.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;

// Of the backward passes over each sequence, which are little of the work: most of it is ablations.
constexpr model::PassOptions least_memory{.recompute = model::Recompute::attention};
constexpr std::uint64_t label_stream = 0x6c6162656c;  // of Philox; nothing else draws from it
constexpr std::int64_t logits_at_a_time = std::int64_t{4} << 20;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Sequences of a training pass that fit the budget: as few batches as it allows, as even as they can be.
std::int64_t batch_size(const model::Model& model, std::int64_t positions, std::size_t budget, std::int64_t sequences) {
  const auto bytes = [&](std::int64_t batch) {
    std::size_t sum = 0;
    for (const kernels::Arena::Part& part : model::Pass::plan_memory(model.config(), model.options(), batch, positions,
                                                                     model::Pass::Kind::train, least_memory))
      sum += part.bytes;
    return sum;
  };
  std::int64_t most = sequences;
  while (most > 1 && bytes(most) > budget) most = (most + 1) / 2;
  const std::int64_t batches = (sequences + most - 1) / most;
  return (sequences + batches - 1) / batches;
}

/// The gain of the RMSNorm that makes x of a read.
kernels::Tensor norm_gain(const model::Model& model, const model::Read& read) {
  if (read.sublayer == model::Sublayer::final) return model.weights().final_norm;
  const model::LayerWeights& layer = model.weights().layers[index(read.layer)];
  return read.sublayer == model::Sublayer::attn ? layer.attn_norm : layer.mlp_norm;
}

/// softmax(logit) without `left_out`, whose weight is 0.
void softmax_without(std::span<double> alpha, std::span<const double> logit, std::size_t left_out) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (std::size_t i = 0; i < logit.size(); ++i)
    if (i != left_out) largest = std::max(largest, logit[i]);
  for (std::size_t i = 0; i < logit.size(); ++i) sum += alpha[i] = i == left_out ? 0 : std::exp(logit[i] - largest);
  for (double& weight : alpha) weight /= sum;
}

/// A read of a batch, on the host.
class HostRead {
 public:
  /// sources [n][tokens, d], logits [tokens, n]: what the softmax takes; gain [d] of the norm that follows.
  HostRead(std::vector<Values> sources, Values logits, Values gain, double eps)
      : sources_(std::move(sources)),
        logits_(std::move(logits)),
        gain_(std::move(gain)),
        eps_(eps),
        alpha_(logits_.size()),
        h_(sources_.front().size()) {
#pragma omp parallel for
    for (std::size_t t = 0; t < tokens(); ++t) {
      softmax_without(std::span(alpha_).subspan(t * size(), size()), row(logits_, t), size());
      mix(std::span(h_).subspan(t * d(), d()), row(alpha_, t), t);
    }
  }

  std::size_t size() const {
    return sources_.size();
  }
  std::size_t tokens() const {
    return logits_.size() / size();
  }

  /// x [tokens, d] with source `i` masked; size(): with none.
  Values input(std::size_t i) const {
    Values x(h_.size());
#pragma omp parallel for
    for (std::size_t t = 0; t < tokens(); ++t) {
      const std::span<double> of_token = std::span(x).subspan(t * d(), d());
      const double weight = i < size() ? alpha_[t * size() + i] : 0;
      if (weight > 0.5) {  // h - alpha_i v_i would lose the digits of the others
        Values others(size());
        softmax_without(others, row(logits_, t), i);
        mix(of_token, others, t);
      } else {
        for (std::size_t k = 0; k < d(); ++k)
          of_token[k] = (h_[t * d() + k] - (i < size() ? weight * sources_[i][t * d() + k] : 0)) / (1 - weight);
      }
      norm(of_token);
    }
    return x;
  }

 private:
  std::size_t d() const {
    return gain_.size();
  }
  std::span<const double> row(const Values& values, std::size_t t) const {
    return std::span(values).subspan(t * size(), size());
  }
  void mix(std::span<double> h, std::span<const double> alpha, std::size_t t) const {
    std::fill(h.begin(), h.end(), 0.0);
    for (std::size_t i = 0; i < size(); ++i)
      for (std::size_t k = 0; k < d(); ++k) h[k] += alpha[i] * sources_[i][t * d() + k];
  }
  void norm(std::span<double> h) const {
    double squares = 0;
    for (double value : h) squares += value * value;
    const double inverse_rms = 1 / std::sqrt(squares / static_cast<double>(d()) + eps_);
    for (std::size_t k = 0; k < d(); ++k) h[k] *= inverse_rms * gain_[k];
  }

  std::vector<Values> sources_;
  Values logits_, gain_;
  double eps_;
  Values alpha_, h_;  // [tokens, n], [tokens, d]
};

/// The passes over one batch of sequences.
class Batch {
 public:
  Batch(const model::Model& model, std::int64_t sequences, std::int64_t positions)
      : model_(model),
        pass_(model, sequences, positions, model::Pass::Kind::train, least_memory),
        gradients_(model.options().storage, model.options().device, {model.layout().total()}),
        x_(model.options().storage, model.options().device, {sequences * positions, model.config().hidden_size}),
        y_(model.options().storage, model.options().device, {sequences * positions, model.config().hidden_size}) {}

  std::int64_t sequences() const { return pass_.batch(); }

  /// Adds to out [sequence][first_order, estimate][reads, columns].
  void measure(const ProbeTokens& tokens, std::int64_t first, std::uint64_t seed, std::span<double> out) {
    const model::ReadPlan& plan = model_.plan();
    const std::size_t routes = index(plan.num_routed()) * index(plan.num_columns());
    const auto cell = [&](std::size_t token, std::size_t table, int r, std::size_t i) -> double& {
      const std::size_t sequence = token / index(pass_.seq_len());
      return out[(2 * sequence + table) * routes + index(r * plan.num_columns() + plan.reads[index(r)].columns[i])];
    };
    pass_.forward(ids_of(tokens, first, sequences()));
    const std::vector<std::int32_t> targets = tokens.targets(first, sequences());
    const std::vector<std::int32_t> labels = draw_labels(tokens, targets, first, seed);
    const std::vector<Values> gradient = backward(targets);
    for (int r = 0; r < plan.num_routed(); ++r) {
      const std::size_t n = plan.reads[index(r)].columns.size();
      const Values dlogit = host(pass_.dlogit(r));
      for (std::size_t i = 0; n > 1 && i < dlogit.size(); ++i) cell(i / n, 0, r, i % n) -= dlogit[i];
    }
    const std::vector<Values> drawn = backward(labels);
    for (int r = 0; r < plan.num_routed(); ++r) {
      if (!is_masked(r)) continue;
      const HostRead read(sources(r), pass_.read_logits(r), host(norm_gain(model_, plan.reads[index(r)])),
                          model_.config().rms_norm_eps);
      const Values intact = output(r, read.input(read.size()));
      for (std::size_t i = 0; i < read.size(); ++i) {
        const Values masked = output(r, read.input(i));
        const std::size_t d = masked.size() / read.tokens();
        for (std::size_t t = 0; t < read.tokens(); ++t) {
          double linear = 0, fisher = 0;
          for (std::size_t k = t * d; k < (t + 1) * d; ++k) {
            linear += gradient[index(r)][k] * (masked[k] - intact[k]);
            fisher += drawn[index(r)][k] * (masked[k] - intact[k]);
          }
          cell(t, 1, r, i) += linear + 0.5 * fisher * fisher;
        }
      }
    }
  }

 private:
  /// A label for every token that has a target, from the model's own distribution; -1 for the others.
  std::vector<std::int32_t> draw_labels(const ProbeTokens& tokens, const std::vector<std::int32_t>& targets,
                                        std::int64_t first, std::uint64_t seed) {
    const std::int64_t vocab = model_.config().vocab_size;
    const std::int64_t rows = std::clamp<std::int64_t>(logits_at_a_time / vocab, 1, pass_.tokens());
    const kernels::OwnedTensor logits(model_.options().storage, model_.options().device, {rows, vocab});
    std::vector<std::int32_t> labels;
    for (std::int64_t begin = 0; begin < pass_.tokens(); begin += rows) {
      const std::int64_t end = std::min(begin + rows, pass_.tokens());
      pass_.logits(begin, end, logits.tensor.rows(0, end - begin));
      const Values values = kernels::host_values<double>(logits.tensor.rows(0, end - begin), pass_.stream());
      for (std::int64_t token = begin; token < end; ++token) {
        // A prompt has one label, which padding must not change.
        const std::int64_t place =
            tokens.is_task() ? first + token / tokens.positions : first * tokens.positions + token;
        const auto word = kernels::random_words(seed, label_stream, static_cast<std::uint64_t>(place));
        labels.push_back(targets[index(token)] < 0
                             ? -1
                             : draw_label(std::span(values).subspan(index((token - begin) * vocab), index(vocab)),
                                          kernels::to_uniform(word.word[0])));
      }
    }
    return labels;
  }

  bool is_masked(int r) const {
    const model::Read& read = model_.plan().reads[index(r)];
    return read.routed && read.columns.size() > 1;
  }
  Values host(kernels::Tensor tensor) const { return kernels::host_values<double>(tensor, pass_.stream()); }
  std::vector<Values> sources(int r) const {
    std::vector<Values> out;
    for (const kernels::Tensor& values : pass_.source_values(r)) out.push_back(host(values));
    return out;
  }

  /// By read, where it has routes to mask: the gradient [tokens, d] of the summed nll of these labels at the output of
  /// its sublayer; at the input of the head.
  std::vector<Values> backward(const std::vector<std::int32_t>& labels) {
    std::vector<Values> out(model_.plan().reads.size());
    pass_.backward(labels, 1.0, gradients_.tensor, [&](int r, kernels::Tensor dx, kernels::Tensor dy) {
      if (is_masked(r)) out[index(r)] = host(dy ? dy : dx);
    });
    return out;
  }

  /// What the sublayer of read r makes of x [tokens, d]; the head: x itself.
  Values output(int r, Values x) {
    if (model_.plan().reads[index(r)].sublayer == model::Sublayer::final) return x;
    kernels::cast(x_.tensor, kernels::Tensor(x.data(), kernels::DType::f64, kernels::Device::cpu, {x_.tensor.numel()}),
                  pass_.stream());
    pass_.sublayer(r, y_.tensor, x_.tensor);
    return host(y_.tensor);
  }

  const model::Model& model_;
  model::Pass pass_;
  kernels::OwnedTensor gradients_;  // of the parameters: by-products
  kernels::OwnedTensor x_, y_;      // [tokens, d] of a sublayer
};

}  // namespace

std::int32_t draw_label(std::span<const double> logits, double uniform) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - largest);
  double left = uniform * sum;
  std::size_t last = 0;  // rounding may leave a rest after all of them
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const double weight = std::exp(logits[id] - largest);
    if (weight > 0) last = id;
    if ((left -= weight) < 0) break;
  }
  return static_cast<std::int32_t>(last);
}

std::vector<double> route_estimates(const model::Model& model, const ProbeTokens& tokens, std::int64_t begin,
                                    std::int64_t end, std::uint64_t seed, std::size_t batch_bytes) {
  const std::size_t routes = index(model.plan().num_routed()) * index(model.plan().num_columns());
  std::vector<double> out(index(end - begin) * 2 * routes, 0.0);
  if (begin == end) return out;
  const std::int64_t size = batch_size(model, tokens.positions, batch_bytes, end - begin);
  std::optional<Batch> batch;
  for (std::int64_t first = begin; first < end; first += size) {
    const std::int64_t count = std::min(size, end - first);
    if (!batch || batch->sequences() != count) {
      batch.reset();
      batch.emplace(model, count, tokens.positions);
    }
    batch->measure(tokens, first, seed,
                   std::span(out).subspan(index(first - begin) * 2 * routes, index(count) * 2 * routes));
  }
  return out;
}

}  // namespace routescope::analysis
