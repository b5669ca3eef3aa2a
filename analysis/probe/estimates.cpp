#include "analysis/probe/estimates.h"

#include <algorithm>
#include <cmath>
#include <optional>

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

/// One token at one read: its sources v_i [d], what the softmax takes, and the gain of the norm that follows.
struct TokenRead {
  std::vector<const double*> sources;
  std::span<const double> logit, gain;
  double eps;

  /// sum_i alpha_i v_i / rms, along `direction`.
  double along(std::span<const double> h, std::span<const double> direction) const {
    double squares = 0, sum = 0;
    for (std::size_t k = 0; k < h.size(); ++k) {
      squares += h[k] * h[k];
      sum += h[k] * direction[k];
    }
    return sum / std::sqrt(squares / static_cast<double>(h.size()) + eps);
  }

  void mix(std::span<double> h, std::span<const double> alpha) const {
    std::fill(h.begin(), h.end(), 0.0);
    for (std::size_t i = 0; i < sources.size(); ++i)
      for (std::size_t k = 0; k < h.size(); ++k) h[k] += alpha[i] * sources[i][k];
  }

  /// out[i] = <g, x(source i masked) - x>, for a gradient g [d] at x.
  void changes(std::span<double> out, const double* g) const {
    const std::size_t d = gain.size(), n = sources.size();
    Values alpha(n), others(n), h(d), masked(d), direction(d);
    for (std::size_t k = 0; k < d; ++k) direction[k] = g[k] * gain[k];
    softmax_without(alpha, logit, n);
    mix(h, alpha);
    const double intact = along(h, direction);
    for (std::size_t i = 0; i < n; ++i) {
      if (alpha[i] > 0.5) {  // h - alpha_i v_i would lose the digits of the others
        softmax_without(others, logit, i);
        mix(masked, others);
      } else {
        for (std::size_t k = 0; k < d; ++k) masked[k] = (h[k] - alpha[i] * sources[i][k]) / (1 - alpha[i]);
      }
      out[i] = along(masked, direction) - intact;
    }
  }
};

/// The passes over one batch of sequences.
class Batch {
 public:
  Batch(const model::Model& model, std::int64_t sequences, std::int64_t positions)
      : model_(model),
        pass_(model, sequences, positions, model::Pass::Kind::train, least_memory),
        gradients_(model.options().storage, model.options().device, {model.layout().total()}) {}

  std::int64_t sequences() const { return pass_.batch(); }

  /// Adds to out [sequence][first_order, estimate][reads, columns].
  void measure(std::span<const std::int32_t> ids, std::int64_t first_token, std::uint64_t seed, std::span<double> out) {
    const model::ReadPlan& plan = model_.plan();
    const std::size_t routes = index(plan.num_routed()) * index(plan.num_columns());
    // of(token, i): what is added to source i of read r.
    const auto add = [&](int r, std::size_t table, const auto& of) {
      const std::vector<int>& columns = plan.reads[index(r)].columns;
      for (std::size_t i = 0; columns.size() > 1 && i < index(pass_.tokens()) * columns.size(); ++i) {
        const std::size_t sequence = i / columns.size() / index(pass_.seq_len());
        out[(2 * sequence + table) * routes + index(r * plan.num_columns() + columns[i % columns.size()])] += of(i);
      }
    };
    pass_.forward(ids);
    const std::vector<std::int32_t> labels = draw_labels(first_token, seed);
    pass_.backward(next_tokens(ids, pass_.seq_len()), 1.0, gradients_.tensor, [&](int r, kernels::Tensor dx) {
      const Values change = changes(r, dx);
      add(r, 1, [&](std::size_t i) { return change[i]; });
    });
    for (int r = 0; r < plan.num_routed(); ++r) {
      const Values dlogit = kernels::host_values<double>(pass_.dlogit(r), pass_.stream());
      add(r, 0, [&](std::size_t i) { return -dlogit[i]; });
    }
    pass_.backward(labels, 1.0, gradients_.tensor, [&](int r, kernels::Tensor dx) {
      const Values change = changes(r, dx);
      add(r, 1, [&](std::size_t i) { return 0.5 * change[i] * change[i]; });
    });
  }

 private:
  /// A label for every token that predicts one, from the model's own distribution; -1 for the others.
  std::vector<std::int32_t> draw_labels(std::int64_t first_token, std::uint64_t seed) {
    const std::int64_t vocab = model_.config().vocab_size;
    const std::int64_t rows = std::clamp<std::int64_t>(logits_at_a_time / vocab, 1, pass_.tokens());
    const kernels::OwnedTensor logits(model_.options().storage, model_.options().device, {rows, vocab});
    std::vector<std::int32_t> labels;
    for (std::int64_t begin = 0; begin < pass_.tokens(); begin += rows) {
      const std::int64_t end = std::min(begin + rows, pass_.tokens());
      pass_.logits(begin, end, logits.tensor.rows(0, end - begin));
      const Values values = kernels::host_values<double>(logits.tensor.rows(0, end - begin), pass_.stream());
      for (std::int64_t token = begin; token < end; ++token) {
        const auto word = kernels::random_words(seed, label_stream, static_cast<std::uint64_t>(first_token + token));
        labels.push_back((token + 1) % pass_.seq_len() == 0
                             ? -1
                             : draw_label(std::span(values).subspan(index((token - begin) * vocab), index(vocab)),
                                          kernels::to_uniform(word.word[0])));
      }
    }
    return labels;
  }

  /// [tokens, n+1] of read r: TokenRead::changes. Empty where it has no route to mask.
  Values changes(int r, kernels::Tensor dx) {
    const model::Read& read = model_.plan().reads[index(r)];
    const std::size_t n = read.columns.size(), d = index(model_.config().hidden_size);
    if (!read.routed || n < 2) return {};
    const auto host = [&](kernels::Tensor tensor) { return kernels::host_values<double>(tensor, pass_.stream()); };
    const Values gradient = host(dx), gain = host(norm_gain(model_, read)), logits = pass_.read_logits(r);
    std::vector<Values> sources;
    for (const kernels::Tensor& values : pass_.source_values(r)) sources.push_back(host(values));
    Values out(index(pass_.tokens()) * n);
#pragma omp parallel for
    for (std::size_t t = 0; t < index(pass_.tokens()); ++t) {
      TokenRead token{{}, std::span(logits).subspan(t * n, n), gain, model_.config().rms_norm_eps};
      for (const Values& values : sources) token.sources.push_back(values.data() + t * d);
      token.changes(std::span(out).subspan(t * n, n), gradient.data() + t * d);
    }
    return out;
  }

  const model::Model& model_;
  model::Pass pass_;
  kernels::OwnedTensor gradients_;  // of the parameters: by-products
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
    batch->measure(ids_of(tokens, first, count), first * tokens.positions, seed,
                   std::span(out).subspan(index(first - begin) * 2 * routes, index(count) * 2 * routes));
  }
  return out;
}

}  // namespace routescope::analysis
