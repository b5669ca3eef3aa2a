#include "analysis/writers/writers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "analysis/probe/summarize.h"
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

/// What is measured on each sequence, in this order: the nll, sums over tokens of the masses, the effects.
struct Layout {
  std::size_t reads, routed, columns;
  explicit Layout(const model::ReadPlan& plan)
      : reads(plan.reads.size()), routed(index(plan.num_routed())), columns(plan.columns.size()) {}
  std::size_t contribution() const { return 1; }
  std::size_t norm_mass() const { return 1 + reads * reads; }
  std::size_t embedding_part() const { return 1 + 2 * reads * reads; }
  std::size_t effects() const { return embedding_part() + routed * columns; }
  std::size_t size() const { return effects() + reads; }
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

/// The nll of each sequence with y_w's term out of every read behind the writer.
Values without(const model::Model& model, BatchProbe& batch, int w) {
  const model::ReadPlan& plan = model.plan();
  const std::int64_t d = model.config().hidden_size, tokens = batch.batch() * batch.positions();
  Values y = output_of(plan, batch, w);
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

WriterMasses masses_of(const model::ReadPlan& plan, std::span<const Values> values, double tokens) {
  const Layout at(plan);
  WriterMasses out;
  const auto mean_at = [&](std::size_t place) {
    double sum = 0;
    for (const Values& one : values) sum += one[place];
    return sum / tokens;
  };
  for (std::size_t cell = 0; cell < at.reads * at.reads; ++cell) {
    const bool before = cell % at.reads <= cell / at.reads;
    out.contribution.push_back(before ? mean_at(at.contribution() + cell) : nan);
    out.norm_mass.push_back(before ? mean_at(at.norm_mass() + cell) : nan);
  }
  out.embedding_part.assign(at.routed * at.columns, nan);
  for (std::size_t r = 0; r < at.routed; ++r)
    for (int column : plan.reads[r].columns)
      out.embedding_part[r * at.columns + index(column)] =
          mean_at(at.embedding_part() + r * at.columns + index(column));
  return out;
}

}  // namespace

std::vector<std::string> writer_names(const model::ReadPlan& plan) {
  std::vector<std::string> out{"embedding"};
  for (std::size_t r = 0; r + 1 < plan.reads.size(); ++r) out.push_back(plan.reads[r].name);
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

Writers measure_writers(const model::Model& model, const ProbeTokens& tokens, const ProbeSettings& settings,
                        std::int64_t step, kernels::Communicator& communicator, std::size_t batch_bytes) {
  check_probe_tokens(tokens, model.config().vocab_size);
  expect_room(model);
  const double start = seconds_now();
  const model::ReadPlan& plan = model.plan();
  const Layout at(plan);
  SharedBatches batches(model, tokens, batch_bytes, communicator);
  const auto values = batches.measure(
      0, tokens.sequences, "writers", [&](BatchProbe& batch, std::int64_t first, std::span<Values> of_sequence) {
        const Values nll = by_sequence(batch.intact(tokens, first).nll, batch.positions());
        for (Values& one : of_sequence) one.assign(at.size(), 0.0);
        for (std::size_t q = 0; q < nll.size(); ++q) of_sequence[q][0] = nll[q];
        add_masses(plan, batch, index(model.config().hidden_size), of_sequence);
        for (int w = static_cast<int>(at.reads) - 1; w > 0; --w) {  // what precedes a writer's first read is intact
          const Values changed = without(model, batch, w);
          for (std::size_t q = 0; q < nll.size(); ++q) of_sequence[q][at.effects() + index(w)] = changed[q] - nll[q];
        }
      });
  Writers out;
  double counted = 0, nll = 0;
  const auto scored = static_cast<double>(tokens.scored());
  out.effects.ablation = Ablation::zero;
  out.effects.sets.resize(at.reads);
  for (std::size_t q = 0; q < values.size(); ++q) {
    counted += static_cast<double>(tokens.length(std::int64_t(q)));
    nll += values[q][0] / scored;
    for (std::size_t w = 0; w < at.reads; ++w)
      out.effects.sets[w].delta_nll_sequence.push_back(w == 0 ? nan : values[q][at.effects() + w] / scored);
  }
  out.intact_nll = nll / static_cast<double>(tokens.sequences);
  out.masses = masses_of(plan, values, counted);
  ProbeIdentity identity{.tokens = tokens,
                         .settings = settings,
                         .sets = writer_names(plan),
                         .model_config = model.config().to_json().dump()};
  identity.settings.until_decided = identity.settings.frozen = identity.settings.direct = false;
  for (std::size_t w = 0; w < at.reads; ++w) out.effects.sets[w].coverage = w == 0 ? 0 : 1;
  const double learned = std::log(static_cast<double>(model.config().vocab_size)) - out.intact_nll;
  summarize(out.effects, identity, settings.margin * std::fmax(learned, 0), step);
  const auto reads = static_cast<double>(at.reads);
  out.passes = 1 + (reads - 1) / 2;  // from each read but the first on
  out.seconds = seconds_now() - start;
  return out;
}

std::string writers_table(const Writers& writers, const model::ReadPlan& plan) {
  const std::vector<std::string> names = writer_names(plan);
  const std::size_t reads = names.size(), columns = plan.columns.size();
  std::string out = fmt::format(
      "writers (zero of each in all reads): intact nll {:.4f} nats/token\n  {:<10} {:>8} "
      "{:>8} {:>9}  {:<20} {:>8}\n",
      writers.intact_nll, "writer", "contrib.", "to final", "effect", "95 % interval", "p adj.");
  for (std::size_t w = 0; w < reads; ++w) {
    double mean = 0;
    for (std::size_t r = w; r < reads; ++r) mean += writers.masses.contribution[r * reads + w];
    const SetEffect& effect = writers.effects.sets[w];
    out += fmt::format("  {:<10} {:>8.3f} {:>8.3f} ", names[w], mean / static_cast<double>(reads - w),
                       writers.masses.contribution[(reads - 1) * reads + w]);
    out += effect.coverage == 0
               ? fmt::format("{:>9}\n", "-")
               : fmt::format("{:>+9.4f}  {:<20} {:>8.2g}\n", effect.delta_nll.value,
                             fmt::format("[{:+.4f}, {:+.4f}]", effect.delta_nll.ci.lower, effect.delta_nll.ci.upper),
                             effect.p_adjusted);
  }
  for (model::Family family : {model::Family::embedding, model::Family::history, model::Family::current}) {
    double sum = 0;
    for (int r = 0; r < plan.num_routed(); ++r)
      for (int column : plan.reads[index(r)].columns)
        if (plan.family(column) == family) sum += writers.masses.embedding_part[index(r) * columns + index(column)];
    if (plan.num_routed() > 0)
      out += fmt::format("  contribution of the embedding through {}: {:.3f}, mean over routed reads\n",
                         to_string(family), sum / plan.num_routed());
  }
  return out + fmt::format("  {:.1f} plain passes, {:.1f} s\n", writers.passes, writers.seconds);
}

}  // namespace routescope::analysis
