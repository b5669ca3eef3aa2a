#include "analysis/probe/measure.h"

#include <algorithm>
#include <chrono>

#include "analysis/probe/share.h"

namespace routescope::analysis {
namespace {

constexpr std::size_t chunk_bytes = std::size_t{32} << 20;  // of logits that are compared at a time

/// As few batches as the memory allows, as even as they can be.
std::int64_t batch_size(const model::Model& model, std::int64_t positions, std::size_t budget, std::int64_t sequences) {
  const model::ModelConfig& config = model.config();
  // A pass keeps two rows of each read (its partial and what it feeds) so that later ones can start from them.
  const std::int64_t values_per_token =
      config.vocab_size + 2 * static_cast<std::int64_t>(model.plan().reads.size()) * config.hidden_size;
  const auto bytes = static_cast<std::size_t>(values_per_token * positions) * kernels::size_of(model.options().storage);
  const std::int64_t most = std::clamp<std::int64_t>(static_cast<std::int64_t>(budget / bytes), 1, sequences);
  const std::int64_t batches = (sequences + most - 1) / most;
  return (sequences + batches - 1) / batches;
}

}  // namespace

std::vector<double> by_sequence(std::span<const double> by_token, std::int64_t positions) {
  const auto width = static_cast<std::size_t>(positions);
  std::vector<double> sums(by_token.size() / width, 0.0);
  for (std::size_t token = 0; token < by_token.size(); ++token) sums[token / width] += by_token[token];
  return sums;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

BatchProbe::BatchProbe(const model::Model& model, std::int64_t batch, std::int64_t positions)
    : pass_(model, batch, positions, model::Pass::Kind::infer, {.reads = model::ReadPhases::fused}),
      reads_(model.plan().num_routed()),
      partials_(static_cast<int>(model.plan().reads.size())),
      vocab_(model.config().vocab_size),
      chunk_(std::clamp<std::int64_t>(static_cast<std::int64_t>(chunk_bytes) / (vocab_ * 4), 1, batch * positions)),
      intact_(model.options().activations(), model.options().device, {batch * positions, vocab_}),
      changed_(model.options().activations(), model.options().device, {chunk_, vocab_}),
      nll_(model.options().storage, model.options().device, {chunk_}),
      kl_(model.options().storage, model.options().device, {chunk_}),
      agree_(model.options().storage, model.options().device, {chunk_}),
      targets_(kernels::DType::i32, model.options().device, {batch * positions}) {}

template <class Each>
PassValues BatchProbe::evaluate(const Each& each, bool answers) {
  PassValues values;
  for (std::int64_t begin = 0; begin < pass_.tokens(); begin += chunk_) {
    const std::int64_t end = std::min(begin + chunk_, pass_.tokens());
    const kernels::Tensor nll = nll_.tensor.rows(0, end - begin);
    const kernels::Tensor logits = each(values, begin, end);
    kernels::cross_entropy(nll, kernels::Tensor{}, logits, targets_.tensor.rows(begin, end), 1.0, pass_.stream());
    const std::vector<double> of_chunk =
        kernels::host_values<double>(nll, pass_.stream());  // 0 where nothing is predicted
    values.nll.insert(values.nll.end(), of_chunk.begin(), of_chunk.end());
    for (std::size_t q = 0; answers && q < answers_.size(); ++q) {
      const std::int64_t token = static_cast<std::int64_t>(q) * pass_.seq_len() + answers_[q].position;
      if (token < begin || token >= end) continue;
      values.answers.push_back(
          metrics_of(kernels::host_values<double>(logits.rows(token - begin, token - begin + 1), pass_.stream()),
                     scored_[static_cast<std::size_t>(token)], answers_[q].distractor));
    }
  }
  return values;
}

PassValues BatchProbe::intact(const ProbeTokens& tokens, std::int64_t first) {
  const auto ids = ids_of(tokens, first, batch());
  ids_.assign(ids.begin(), ids.end());
  scored_ = tokens.targets(first, batch());
  lengths_.clear();
  answers_.clear();
  for (std::int64_t q = first; q < first + batch(); ++q) {
    lengths_.push_back(tokens.length(q));
    if (tokens.is_task()) answers_.push_back(tokens.answers[static_cast<std::size_t>(q)]);
  }
  kernels::copy(targets_.tensor,
                kernels::Tensor(scored_.data(), kernels::DType::i32, kernels::Device::cpu, {targets_.tensor.numel()}),
                pass_.stream());
  pass_.forward(ids_);
  return evaluate(
      [&](PassValues&, std::int64_t begin, std::int64_t end) {
        const kernels::Tensor logits = intact_.tensor.rows(begin, end);
        pass_.logits(begin, end, logits);
        return logits;
      },
      true);
}

PassValues BatchProbe::direct(const model::RoutingIntervention& intervention, std::span<const int> reads) {
  pass_.forward_direct(intervention, reads);
  return evaluate([&](PassValues&, std::int64_t begin, std::int64_t end) {
    const kernels::Tensor logits = changed_.tensor.rows(0, end - begin);
    pass_.logits(begin, end, logits);
    return logits;
  });
}

PassValues BatchProbe::intervened(std::span<const model::RoutingIntervention> interventions, int first_read,
                                  bool compared) {
  if (interventions.size() == 1)
    pass_.forward(ids_, &interventions.front(), first_read);
  else
    pass_.forward_each(ids_, interventions, first_read);
  return evaluate(
      [&](PassValues& values, std::int64_t begin, std::int64_t end) {
        const kernels::Tensor logits = changed_.tensor.rows(0, end - begin);
        pass_.logits(begin, end, logits);
        if (!compared) return logits;
        kernels::compare_logits(kl_.tensor.rows(0, end - begin), agree_.tensor.rows(0, end - begin),
                                intact_.tensor.rows(begin, end), logits, pass_.stream());
        std::vector<double> kl = kernels::host_values<double>(kl_.tensor.rows(0, end - begin), pass_.stream());
        std::vector<double> agree = kernels::host_values<double>(agree_.tensor.rows(0, end - begin), pass_.stream());
        for (std::int64_t token = begin; token < end; ++token) {
          const bool predicts = scored_[static_cast<std::size_t>(token)] >= 0;
          values.kl.push_back(predicts ? kl[static_cast<std::size_t>(token - begin)] : 0);
          values.agree.push_back(predicts ? agree[static_cast<std::size_t>(token - begin)] : 0);
        }
        return logits;
      },
      compared);
}

std::vector<double> BatchProbe::contributions(int read) const {
  const kernels::Tensor alpha = pass_.alpha(read);
  const std::vector<kernels::Tensor> values = pass_.source_values(read);
  const std::int64_t columns = alpha.shape[1];
  const kernels::OwnedTensor sums(kernels::DType::f64, alpha.device, {batch(), 2, columns});
  for (std::int64_t q = 0; q < batch(); ++q) {
    const auto of_sequence = [&, length = lengths_[static_cast<std::size_t>(q)]](const kernels::Tensor& t) {
      return t.rows(q * positions(), q * positions() + length);
    };
    std::vector<kernels::Tensor> rows;
    std::transform(values.begin(), values.end(), std::back_inserter(rows), of_sequence);
    kernels::contribution_statistics(sums.tensor.slice(q * 2 * columns, {2, columns}), of_sequence(alpha), rows,
                                     pass_.stream());
  }
  return kernels::host_values<double>(sums.tensor, pass_.stream());
}

KeptPass BatchProbe::keep(std::span<const Ablation> ablations, bool frozen) const {
  const auto any = [&](auto takes) {
    return std::any_of(ablations.begin(), ablations.end(),
                       [&](Ablation one) { return donor_of(one) == Donor::text && takes(one); });
  };
  const bool weights = any([](Ablation one) { return part_of(one) == Part::weight; });
  const bool logits = frozen || any(changes_keys), values = !frozen && any(changes_values);
  KeptPass kept;
  for (int r = 0; r < static_cast<int>(reads_); ++r) {
    if (weights && !frozen) kept.alpha.push_back(alpha(r));
    if (logits) kept.logits.push_back(pass_.read_logits(r));
    if (frozen) kept.on_device.push_back(copy_of(pass_.alpha(r)));
  }
  for (int r = 0; values && r < partials_; ++r) kept.partial.push_back(copy_of(pass_.partial(r)));
  return kept;
}

kernels::OwnedTensor BatchProbe::copy_of(const kernels::Tensor& tensor) const {
  kernels::OwnedTensor copy(tensor.dtype, tensor.device, {tensor.shape[0], tensor.shape[1]});
  kernels::copy(copy.tensor, tensor, pass_.stream());
  return copy;
}

KeptPass BatchProbe::donors(std::span<const std::int32_t> ids, std::span<const Ablation> ablations) {
  pass_.forward(ids);
  return keep(ablations, false);
}

std::span<const std::int32_t> ids_of(const ProbeTokens& tokens, std::int64_t first, std::int64_t count) {
  return std::span(tokens.ids)
      .subspan(static_cast<std::size_t>(first * tokens.positions), static_cast<std::size_t>(count * tokens.positions));
}

std::vector<std::vector<double>> SharedBatches::measure(std::int64_t begin, std::int64_t end, const std::string& what,
                                                        const Body& body) {
  return share_sequences(begin, end, what, communicator_, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> all;
    if (first == last) return all;
    const std::int64_t size = batch_size(model_, tokens_.positions, batch_bytes_, last - first);
    for (; first < last; first += size) {
      const std::int64_t count = std::min(size, last - first);
      if (!batch_ || batch_->batch() != count) {
        batch_.reset();
        batch_ = std::make_unique<BatchProbe>(model_, count, tokens_.positions);
      }
      std::vector<std::vector<double>> values(static_cast<std::size_t>(count));
      body(*batch_, first, values);
      for (const std::vector<double>& one : values) all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  });
}

}  // namespace routescope::analysis
