#include "analysis/probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "analysis/statistics.h"
#include "data/error.h"
#include "kernels/agree.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

namespace routescope {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t chunk_bytes = std::size_t{32} << 20;  // of logits that are compared at a time

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Sums over the predicted tokens of one sequence.
struct SequenceSums {
  double nll = 0, kl = 0, agree = 0;
};

/// The probe of one batch: an intact pass whose logits are kept, then one pass for each ablation, compared with it.
class BatchProbe {
 public:
  BatchProbe(const Model& model, std::int64_t batch, std::int64_t positions)
      : model_(model),
        pass_(model, batch, positions, Pass::Kind::infer),
        vocab_(model.config().vocab_size),
        chunk_(std::clamp<std::int64_t>(static_cast<std::int64_t>(chunk_bytes) / (vocab_ * 4), 1, batch * positions)),
        intact_(model.options().activations(), model.options().device, {batch * positions, vocab_}),
        ablated_(model.options().activations(), model.options().device, {chunk_, vocab_}),
        nll_(model.options().storage, model.options().device, {chunk_}),
        kl_(model.options().storage, model.options().device, {chunk_}),
        agree_(model.options().storage, model.options().device, {chunk_}),
        targets_(DType::i32, model.options().device, {batch * positions}) {}

  std::int64_t batch() const { return pass_.batch(); }

  std::vector<SequenceSums> intact(std::span<const std::int32_t> ids) {
    ids_.assign(ids.begin(), ids.end());
    const auto positions = index(pass_.seq_len());
    std::vector<std::int32_t> targets(ids_.size());
    for (std::size_t i = 0; i < ids_.size(); ++i) targets[i] = (i + 1) % positions == 0 ? -1 : ids_[i + 1];
    copy(targets_.tensor, Tensor(targets.data(), DType::i32, Device::cpu, {targets_.tensor.numel()}), pass_.stream());
    pass_.forward(ids_);
    std::vector<SequenceSums> sums(index(batch()));
    for (std::int64_t begin = 0; begin < pass_.tokens(); begin += chunk_) {
      const std::int64_t end = std::min(begin + chunk_, pass_.tokens());
      const Tensor logits = intact_.tensor.rows(begin, end);
      pass_.logits(begin, end, logits);
      add_nll(sums, logits, begin, end);
    }
    return sums;
  }

  /// alpha of the pass that ran last, summed over a sequence's tokens: [sequence][reads, columns].
  std::vector<std::vector<double>> alpha_sums() const {
    const ReadPlan& plan = model_.plan();
    std::vector<std::vector<double>> sums(index(batch()),
                                          std::vector<double>(index(plan.num_routed() * plan.num_columns()), 0.0));
    for (int r = 0; r < plan.num_routed(); ++r) {
      const std::vector<double> alpha = host_values<double>(pass_.alpha(r), pass_.stream());
      const std::vector<int>& columns = plan.reads[index(r)].columns;
      for (std::size_t i = 0; i < alpha.size(); ++i) {
        const std::size_t sequence = i / columns.size() / index(pass_.seq_len());
        sums[sequence][index(r * plan.num_columns() + columns[i % columns.size()])] += alpha[i];
      }
    }
    return sums;
  }

  /// `first_read`: everything before it is as in the pass that ran last.
  std::vector<SequenceSums> ablated(const RoutingIntervention& intervention, int first_read) {
    pass_.forward(ids_, &intervention, first_read);
    std::vector<SequenceSums> sums(index(batch()));
    for (std::int64_t begin = 0; begin < pass_.tokens(); begin += chunk_) {
      const std::int64_t end = std::min(begin + chunk_, pass_.tokens());
      const Tensor logits = ablated_.tensor.rows(0, end - begin);
      pass_.logits(begin, end, logits);
      add_nll(sums, logits, begin, end);
      compare_logits(kl_.tensor.rows(0, end - begin), agree_.tensor.rows(0, end - begin),
                     intact_.tensor.rows(begin, end), logits, pass_.stream());
      const std::vector<double> kl = host_values<double>(kl_.tensor.rows(0, end - begin), pass_.stream());
      const std::vector<double> agree = host_values<double>(agree_.tensor.rows(0, end - begin), pass_.stream());
      for (std::int64_t token = begin; token < end; ++token) {
        if ((token + 1) % pass_.seq_len() == 0) continue;
        sums[index(token / pass_.seq_len())].kl += kl[index(token - begin)];
        sums[index(token / pass_.seq_len())].agree += agree[index(token - begin)];
      }
    }
    return sums;
  }

 private:
  void add_nll(std::vector<SequenceSums>& sums, const Tensor& logits, std::int64_t begin, std::int64_t end) {
    const Tensor nll = nll_.tensor.rows(0, end - begin);
    cross_entropy(nll, Tensor{}, logits, targets_.tensor.rows(begin, end), 1.0, pass_.stream());
    const std::vector<double> values = host_values<double>(nll, pass_.stream());  // 0 where nothing is predicted
    for (std::int64_t token = begin; token < end; ++token) {
      sums[index(token / pass_.seq_len())].nll += values[index(token - begin)];
    }
  }

  const Model& model_;
  Pass pass_;
  std::int64_t vocab_, chunk_;
  OwnedTensor intact_, ablated_, nll_, kl_, agree_, targets_;
  std::vector<std::int32_t> ids_;
};

/// What is measured on one sequence.
struct SequenceValues {
  SequenceSums intact;
  std::vector<double> alpha;          // [reads, columns]
  std::vector<SequenceSums> ablated;  // [ablation]
};

/// As few batches as the memory allows, as even as they can be.
std::int64_t batch_size(const Model& model, const ProbeTokens& tokens, std::size_t budget, std::int64_t sequences) {
  const ModelConfig& config = model.config();
  // A pass keeps two rows of each read (its partial and what it feeds) so that later ones can start from them.
  const std::int64_t values_per_token =
      config.vocab_size + 2 * static_cast<std::int64_t>(model.plan().reads.size()) * config.hidden_size;
  const auto bytes = static_cast<std::size_t>(values_per_token * tokens.positions) * size_of(model.options().storage);
  const std::int64_t most = std::clamp<std::int64_t>(static_cast<std::int64_t>(budget / bytes), 1, sequences);
  const std::int64_t batches = (sequences + most - 1) / most;
  return (sequences + batches - 1) / batches;
}

/// Sequences [begin, end) under every mask of `order`.
std::vector<SequenceValues> measure(const Model& model, const ProbeTokens& tokens, std::int64_t begin, std::int64_t end,
                                    const std::vector<SliceMask>& masks, const std::vector<std::size_t>& order,
                                    const ProbeOptions& options) {
  std::vector<SequenceValues> values;
  if (begin == end) return values;
  const std::int64_t size = batch_size(model, tokens, options.batch_bytes, end - begin);
  std::unique_ptr<BatchProbe> batch;
  for (; begin < end; begin += size) {
    const std::int64_t count = std::min(size, end - begin);
    if (!batch || batch->batch() != count) {
      batch.reset();
      batch = std::make_unique<BatchProbe>(model, count, tokens.positions);
    }
    const std::size_t first = values.size();
    const auto intact =
        batch->intact(std::span(tokens.ids).subspan(index(begin * tokens.positions), index(count * tokens.positions)));
    auto alpha = batch->alpha_sums();
    for (std::size_t i = 0; i < intact.size(); ++i) values.push_back({intact[i], std::move(alpha[i]), {}});
    for (std::size_t s : order) {
      const int first_read = options.share_prefix ? masks[s].masked_reads.front() : 0;
      const auto ablated = batch->ablated(masks[s].intervention, first_read);
      for (std::size_t i = 0; i < ablated.size(); ++i) values[first + i].ablated.push_back(ablated[i]);
    }
  }
  return values;
}

/// As bytes for the other ranks, and back; every sequence has as many of each.
std::string to_bytes(const std::vector<SequenceValues>& values) {
  std::vector<double> numbers;
  const auto add = [&](const SequenceSums& sums) { numbers.insert(numbers.end(), {sums.nll, sums.kl, sums.agree}); };
  for (const SequenceValues& one : values) {
    add(one.intact);
    numbers.insert(numbers.end(), one.alpha.begin(), one.alpha.end());
    for (const SequenceSums& sums : one.ablated) add(sums);
  }
  std::string bytes(numbers.size() * sizeof(double), '\0');
  if (!bytes.empty()) std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

std::vector<SequenceValues> from_bytes(const std::string& bytes, std::size_t alphas, std::size_t ablations) {
  std::vector<double> numbers(bytes.size() / sizeof(double));
  if (!bytes.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
  std::vector<SequenceValues> values;
  auto next = [number = numbers.data()]() mutable { return *number++; };
  const auto sums = [&next] {
    SequenceSums out;
    out.nll = next();
    out.kl = next();
    out.agree = next();
    return out;
  };
  for (std::size_t i = 0; i < numbers.size() / (3 + alphas + 3 * ablations); ++i) {
    SequenceValues& one = values.emplace_back();
    one.intact = sums();
    for (std::size_t a = 0; a < alphas; ++a) one.alpha.push_back(next());
    for (std::size_t a = 0; a < ablations; ++a) one.ablated.push_back(sums());
  }
  return values;
}

}  // namespace

const AblationEffects* ProbeRow::find(Ablation ablation) const {
  const auto found =
      std::find_if(ablations.begin(), ablations.end(), [&](const auto& one) { return one.ablation == ablation; });
  return found == ablations.end() ? nullptr : &*found;
}

const AblationEffects& ProbeRow::effects(Ablation ablation) const {
  if (const AblationEffects* found = find(ablation)) return *found;
  throw std::logic_error("this ablation was not measured");
}

void summarize(AblationEffects& effects, std::int64_t sequences, const ProbeOptions& options) {
  const std::size_t slices = effects.coverage.size();
  for (auto* values : {&effects.delta_nll, &effects.ci_lower, &effects.ci_upper, &effects.p_value})
    values->assign(slices, nan);
  for (std::size_t s = 0; s < slices; ++s) {  // a slice that was not tested is NaN, and so is all that follows from it
    const std::span<const double> values(effects.delta_nll_sequence.data() + s * index(sequences), index(sequences));
    const RandomKey key{options.settings.seed, static_cast<std::uint64_t>(options.step), s};
    const Interval interval = bootstrap_interval(values, key);
    effects.delta_nll[s] = mean(values);
    effects.ci_lower[s] = interval.lower;
    effects.ci_upper[s] = interval.upper;
    effects.p_value[s] = sign_flip_test(values, key);
  }
  effects.p_adjusted = holm_adjust(effects.p_value);
}

ProbeRow probe(const Model& model, const ProbeTokens& tokens, const ProbeOptions& options) {
  return probe(model, tokens, options, *single_communicator());
}

ProbeRow probe(const Model& model, const ProbeTokens& tokens, const ProbeOptions& options, Communicator& communicator) {
  const ReadPlan& plan = model.plan();
  if (plan.num_routed() == 0) {
    throw Error("the model's residual stream is '{}': it has no reads to probe, expected a routed model",
                to_string(model.config().residual));
  }
  check_probe_tokens(tokens, model.config().vocab_size);

  const std::vector<Slice> slices = make_slices(plan);
  std::vector<SliceMask> masks;
  for (const Slice& slice : slices) masks.push_back(mask_slice(plan, slice));
  // From the ablation that starts deepest to the one that starts first: what precedes an ablation's first read is then
  // always intact, and is taken over instead of computed again.
  std::vector<std::size_t> order;
  for (std::size_t s = 0; s < masks.size(); ++s) {
    if (!masks[s].masked_reads.empty()) order.push_back(s);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return masks[a].masked_reads.front() > masks[b].masked_reads.front();
  });

  const double predicted = static_cast<double>(tokens.positions - 1);
  const auto sequences = index(tokens.sequences);
  ProbeRow row;
  AblationEffects& effects = row.ablations.emplace_back();
  row.step = options.step;
  row.intact_nll_sequence.assign(sequences, nan);
  effects.delta_nll_sequence.assign(slices.size() * sequences, nan);
  effects.kl.assign(slices.size(), nan);
  effects.top1_agreement.assign(slices.size(), nan);
  for (std::size_t s : order) effects.kl[s] = effects.top1_agreement[s] = 0;
  for (const SliceMask& mask : masks) effects.coverage.push_back(mask.coverage);

  const auto part = [&](int rank) { return tokens.sequences * rank / communicator.size(); };
  std::vector<SequenceValues> values;
  agree(communicator, "probe", [&] {
    values = measure(model, tokens, part(communicator.rank()), part(communicator.rank() + 1), masks, order, options);
  });
  std::string all;
  for (const std::string& of_rank : communicator.gather(to_bytes(values), "probe")) all += of_rank;
  const std::size_t alphas = index(plan.num_routed() * plan.num_columns());
  values = from_bytes(communicator.broadcast(all, "probe"), alphas, order.size());

  std::vector<double> alpha(alphas, 0.0);
  for (std::size_t i = 0; i < sequences; ++i) {
    row.intact_nll_sequence[i] = values[i].intact.nll / predicted;
    for (std::size_t a = 0; a < alphas; ++a) alpha[a] += values[i].alpha[a];
    for (std::size_t o = 0; o < order.size(); ++o) {
      const SequenceSums& ablated = values[i].ablated[o];
      effects.delta_nll_sequence[order[o] * sequences + i] = (ablated.nll - values[i].intact.nll) / predicted;
      effects.kl[order[o]] += ablated.kl / (predicted * static_cast<double>(sequences));
      effects.top1_agreement[order[o]] += ablated.agree / (predicted * static_cast<double>(sequences));
    }
  }
  row.intact_nll = mean(row.intact_nll_sequence);
  for (double& value : alpha) value /= static_cast<double>(tokens.ids.size());
  row.mass = slice_masses(slices, alpha, plan.num_columns());
  summarize(effects, tokens.sequences, options);
  return row;
}

}  // namespace routescope
