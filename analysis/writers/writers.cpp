#include "analysis/writers/writers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/probe/intact.h"
#include "analysis/probe/summarize.h"
#include "analysis/statistics/documents.h"
#include "analysis/statistics/two_way.h"
#include "data/base/error.h"
#include "model/pass/direct.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

double dot(const double* a, const double* b, std::size_t d) {
  return std::inner_product(a, a + d, b, 0.0);
}

/// Whether source i of a read, in the order of its columns, holds a writer's output.
bool holds(const model::ReadPlan& plan, int r, std::size_t i, int writer) {
  const std::vector<int>& sources = plan.reads[index(r)].sources;
  return model::is_part_of(plan, writer, i < sources.size() ? sources[i] : r);
}

/// What is measured on each sequence, in this order: sums over tokens of the masses, what is added to the nll.
struct Layout {
  std::size_t reads, routed, columns;
  explicit Layout(const model::ReadPlan& plan)
      : reads(plan.reads.size()), routed(index(plan.num_routed())), columns(plan.columns.size()) {}
  std::size_t contribution() const { return 0; }
  std::size_t norm_mass() const { return reads * reads; }
  std::size_t embedding_part() const { return 2 * reads * reads; }
  std::size_t zero() const { return embedding_part() + routed * columns; }
  std::size_t mean() const { return zero() + reads; }
  std::size_t size() const { return mean() + reads; }
};

/// y_w [tokens, d] of the last pass.
Values output_of(const model::ReadPlan& plan, const BatchProbe& batch, int w) {
  Values y = batch.partial(w);
  if (w == 0 || !plan.reads[index(w)].continues) return y;
  const Values before = batch.partial(w - 1);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] -= before[i];
  return y;
}

/// The masses of one read and token, added to a sequence's sums. y[w]: the writer's output at the token.
void add_token(const model::ReadPlan& plan, int r, std::span<const double> alpha, std::span<const double* const> y,
               std::size_t d, Values& sums) {
  const Layout at(plan);
  const Values omega = writer_weights(plan, r, alpha);
  Values h(d, 0.0), norm(omega.size(), 0.0);
  for (std::size_t w = 0; w < omega.size(); ++w) {
    if (omega[w] == 0) continue;
    for (std::size_t i = 0; i < d; ++i) h[i] += omega[w] * y[w][i];
    norm[w] = std::abs(omega[w]) * std::sqrt(dot(y[w], y[w], d));
  }
  const double square = dot(h.data(), h.data(), d), norms = std::accumulate(norm.begin(), norm.end(), 0.0),
               weights = std::accumulate(omega.begin(), omega.end(), 0.0);
  const auto share = [&](std::size_t w) { return square > 0 ? dot(y[w], h.data(), d) / square : 1 / weights; };
  for (std::size_t w = 0; w < omega.size(); ++w) {
    if (omega[w] == 0) continue;
    const std::size_t cell = index(r) * at.reads + w;
    sums[at.contribution() + cell] += omega[w] * share(w);
    sums[at.norm_mass() + cell] += norms > 0 ? norm[w] / norms : omega[w] / weights;
  }
  for (std::size_t i = 0; i < alpha.size(); ++i) {
    const std::size_t column = index(plan.reads[index(r)].columns[i]);
    if (holds(plan, r, i, 0)) sums[at.embedding_part() + index(r) * at.columns + column] += alpha[i] * share(0);
  }
}

void add_masses(const model::ReadPlan& plan, const BatchProbe& batch, std::size_t d, std::span<Values> of_sequence) {
  std::vector<Values> y;
  for (int w = 0; w < std::ssize(plan.reads); ++w) y.push_back(output_of(plan, batch, w));
  for (int r = 0; r < std::ssize(plan.reads); ++r) {
    const model::Read& read = plan.reads[index(r)];
    const Values alpha = read.routed ? batch.alpha(r) : Values{};
    const std::size_t sources = read.columns.size();
    for (std::size_t q = 0; q < of_sequence.size(); ++q) {
      for (std::int64_t position = 0; position < batch.lengths()[q]; ++position) {
        const std::size_t t = q * index(batch.positions()) + index(position);
        std::vector<const double*> at;
        for (const Values& one : y) at.push_back(&one[t * d]);
        add_token(plan, r, std::span(alpha).subspan(t * sources, sources), at, d, of_sequence[q]);
      }
    }
  }
}

/// The mean of y_w [d] from those of the partials.
Values mean_output(const model::ReadPlan& plan, std::span<const Values> partial_mean, int w) {
  Values y = partial_mean[index(w)];
  for (std::size_t i = 0; w > 0 && plan.reads[index(w)].continues && i < y.size(); ++i)
    y[i] -= partial_mean[index(w - 1)][i];
  return y;
}

/// The nll of each sequence with `kept` [d] in place of y_w in every read behind the writer.
Values replaced(const model::Model& model, BatchProbe& batch, int w, const Values& kept) {
  const model::ReadPlan& plan = model.plan();
  const std::int64_t d = model.config().hidden_size, tokens = batch.batch() * batch.positions();
  Values y = output_of(plan, batch, w);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] -= kept[i % kept.size()];
  const kernels::Stream stream{.device = model.options().device};
  const kernels::OwnedTensor table(model.options().activations(), model.options().device, {tokens, d});
  kernels::cast(table.tensor, kernels::Tensor(y.data(), kernels::DType::f64, kernels::Device::cpu, {tokens, d}),
                stream);
  kernels::synchronize(stream);
  std::vector<std::int32_t> rows(index(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  model::RoutingIntervention intervention;
  for (int r = w; r < std::ssize(plan.reads); ++r) {
    const auto edit = [&plan, r, w](std::span<const double> alpha, std::span<double> edited) {
      const bool routed = plan.reads[index(r)].routed;
      const std::size_t sources = routed ? plan.reads[index(r)].columns.size() : 1;
      for (std::size_t t = 0; t < alpha.size() / sources; ++t) {
        const std::span<const double> of_token = alpha.subspan(t * sources, sources);
        double* to = std::copy(of_token.begin(), of_token.end(), &edited[t * (sources + 1)]);
        *to = -writer_weights(plan, r, routed ? of_token : std::span<const double>{})[index(w)];
      }
    };
    intervention.edits[r] = {.extra = {{.table = table.tensor, .rows = rows}}, .alpha = edit};
  }
  return by_sequence(batch.intervened({&intervention, 1}, w, false).nll, batch.positions());
}

void expect_room(const model::Model& model) {
  if (model.options().device == kernels::Device::cpu) return;
  for (const model::Read& read : model.plan().reads)
    if (read.sources.size() + 1 > most_cuda_sources)
      throw data::Error("--writers: read {}: found {} completed sources, expected at most {} on CUDA: use the CPU",
                        read.name, read.sources.size(), most_cuda_sources - 1);
}

/// The mean over all tokens of a sum that stands at one place of each sequence's values, or of several of these.
class Means {
 public:
  Means(const ProbeTokens& tokens, std::span<const Values> values) : tokens_(tokens), values_(values) {}
  Estimate at(std::size_t place) const { return over({place}); }
  Estimate over(const std::vector<std::size_t>& places) const {
    Values mean;  // [sequence]
    for (const Values& one : values_) {
      double sum = 0;
      for (std::size_t place : places) sum += one[place];
      mean.push_back(sum / static_cast<double>(std::ssize(places) * tokens_.positions));
    }
    return {analysis::mean(mean), two_way_mean({document_values(mean, tokens_.documents)}).ci};
  }

 private:
  const ProbeTokens& tokens_;
  std::span<const Values> values_;
};

void set_masses(const model::ReadPlan& plan, const Means& means, Writers& out) {
  const Layout at(plan);
  const auto set = [&](std::size_t first, std::vector<Estimate>& cells, std::vector<Estimate>& of_writers) {
    for (std::size_t cell = 0; cell < at.reads * at.reads; ++cell)
      cells.push_back(cell % at.reads <= cell / at.reads ? means.at(first + cell) : Estimate{});
    for (std::size_t w = 0; w < at.reads; ++w) {
      std::vector<std::size_t> behind;
      for (std::size_t r = w; r < at.reads; ++r) behind.push_back(first + r * at.reads + w);
      of_writers.push_back(means.over(behind));
    }
  };
  set(at.contribution(), out.contribution, out.mean_contribution);
  set(at.norm_mass(), out.norm_mass, out.mean_norm_mass);
  out.embedding_part.resize(at.routed * at.columns);
  for (std::size_t r = 0; r < at.routed; ++r) {
    for (int column : plan.reads[r].columns) {
      const std::size_t cell = r * at.columns + index(column);
      out.embedding_part[cell] = means.at(at.embedding_part() + cell);
    }
  }
}

/// The effects [writer] from what is added to the nll of each sequence, at `first` and after it.
std::vector<WriterEffect> effects_of(const ProbeIdentity& identity, Ablation ablation, std::span<const Values> values,
                                     std::size_t first, double margin, std::int64_t step) {
  const auto writers = identity.plan().reads.size();
  AblationEffects effects{ablation, std::vector<SetEffect>(writers), {}};
  for (std::size_t w = 0; w < writers; ++w) {
    SetEffect& set = effects.sets[w];
    const bool tested = w > 0 || ablation == Ablation::mean;
    set.coverage = tested ? 1 : 0;
    for (const Values& one : values)
      set.delta_nll_sequence.push_back(tested ? one[first + w] / static_cast<double>(identity.tokens.scored()) : nan);
  }
  summarize(effects, identity, margin, step);
  std::vector<WriterEffect> out;
  for (SetEffect& set : effects.sets)
    out.push_back({std::move(set.delta_nll_sequence), set.delta_nll, set.p_value, set.p_adjusted, set.p_equivalence,
                   set.p_equivalence_adjusted});
  return out;
}

}  // namespace

std::vector<std::string> writer_names(const model::ReadPlan& plan) {
  std::vector<std::string> out{"embedding"};
  for (std::size_t r = 0; r + 1 < plan.reads.size(); ++r) out.push_back(plan.reads[r].name);
  return out;
}

std::vector<std::string> reader_names(const model::ReadPlan& plan) {
  std::vector<std::string> out;
  for (const model::Read& read : plan.reads) out.push_back(read.name);
  return out;
}

std::vector<double> writer_weights(const model::ReadPlan& plan, int read, std::span<const double> alpha) {
  Values omega(plan.reads.size(), 0.0);
  const std::size_t sources = plan.reads[index(read)].routed ? alpha.size() : 1;
  for (int w = 0; w <= read; ++w)
    for (std::size_t i = 0; i < sources; ++i)
      if (holds(plan, read, i, w)) omega[index(w)] += alpha.empty() ? 1.0 : alpha[i];
  return omega;
}

Writers measure_writers(const model::Model& model, const ProbeIdentity& identity, std::int64_t step, double margin,
                        kernels::Communicator& communicator, std::size_t batch_bytes) {
  const ProbeTokens& tokens = identity.tokens;
  check_probe_tokens(tokens, model.config().vocab_size);
  expect_room(model);
  const double start = seconds_now();
  const model::ReadPlan& plan = model.plan();
  const Layout at(plan);
  SharedBatches batches(model, tokens, batch_bytes, communicator);
  const std::vector<Values> partial_mean = measure_intact(model, tokens, true, batches).reference.source_mean;
  const Values nothing(index(model.config().hidden_size), 0.0);
  const auto values = batches.measure(
      0, tokens.sequences, "writers", [&](BatchProbe& batch, std::int64_t first, std::span<Values> of_sequence) {
        const Values nll = by_sequence(batch.intact(tokens, first).nll, batch.positions());
        for (Values& one : of_sequence) one.assign(at.size(), 0.0);
        add_masses(plan, batch, nothing.size(), of_sequence);
        const auto measure = [&](int w, std::size_t place, const Values& kept) {
          const Values changed = replaced(model, batch, w, kept);
          for (std::size_t q = 0; q < nll.size(); ++q) of_sequence[q][place + index(w)] = changed[q] - nll[q];
        };
        for (int w = static_cast<int>(at.reads) - 1; w >= 0; --w) {  // what precedes a writer's first read is intact
          if (w > 0) measure(w, at.zero(), nothing);
          measure(w, at.mean(), mean_output(plan, partial_mean, w));
        }
      });
  Writers out;
  set_masses(plan, Means(tokens, values), out);
  ProbeIdentity plain = identity;
  plain.settings.until_decided = false;
  out.zero = effects_of(plain, Ablation::zero, values, at.zero(), margin, step);
  out.mean = effects_of(plain, Ablation::mean, values, at.mean(), margin, step);
  out.passes = 2 + static_cast<double>(at.reads);  // from each read but the first on, and once more from each
  out.seconds = seconds_now() - start;
  return out;
}

std::string writers_table(const Writers& writers, const model::ReadPlan& plan) {
  const std::vector<std::string> names = writer_names(plan);
  const std::size_t reads = names.size(), columns = plan.columns.size();
  const auto effect_text = [](const WriterEffect& effect) {
    if (std::isnan(effect.delta_nll.value)) return fmt::format("{:>28} {:>8}", "-", "-");
    return fmt::format("{:>28} {:>8.2g}",
                       fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", effect.delta_nll.value, effect.delta_nll.ci.lower,
                                   effect.delta_nll.ci.upper),
                       effect.p_adjusted);
  };
  std::string out = fmt::format(
      "writers (zero and mean of each in all reads)\n  {:<10} {:>8} {:>8} {:>28} {:>8} {:>28} {:>8}\n", "writer",
      "contrib.", "to final", "zero [95 %], nats/tok", "p adj.", "mean [95 %], nats/tok", "p adj.");
  for (std::size_t w = 0; w < reads; ++w)
    out += fmt::format("  {:<10} {:>8.3f} {:>8.3f} {} {}\n", names[w], writers.mean_contribution[w].value,
                       writers.contribution[(reads - 1) * reads + w].value, effect_text(writers.zero[w]),
                       effect_text(writers.mean[w]));
  for (model::Family family : {model::Family::embedding, model::Family::history, model::Family::current}) {
    double sum = 0;
    for (int r = 0; r < plan.num_routed(); ++r)
      for (int column : plan.reads[index(r)].columns)
        if (plan.family(column) == family) sum += writers.embedding_part[index(r) * columns + index(column)].value;
    if (plan.num_routed() > 0)
      out += fmt::format("  contribution of the embedding through {}: {:.3f}, mean over routed reads\n",
                         to_string(family), sum / plan.num_routed());
  }
  return out + fmt::format("  {:.1f} plain passes, {:.1f} s\n", writers.passes, writers.seconds);
}

}  // namespace routescope::analysis
