// Every ablation is what one gets by changing a read's weights by hand, one read after another, and running everything
// again in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analysis/probe/probe.h"
#include "model/pass/pass.h"
#include "model/wrap/wrap.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::analysis {
namespace {

using testing::micro_config;
using testing::micro_model;
using testing::micro_tokens;

constexpr std::int64_t sequences = 2, positions = 10, vocab = 37, d = 16;
const model::ModelOptions f64 = {.storage = kernels::DType::f64, .operands = kernels::DType::f64};

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

class Recomputed : public ::testing::TestWithParam<Mode> {};

INSTANTIATE_TEST_SUITE_P(
    Modes, Recomputed,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
                      Mode{"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum}),
    [](const auto& mode) { return std::string(mode.param.name); });

/// log p [tokens, vocab] of a pass that ran.
std::vector<double> log_p(model::Pass& pass) {
  kernels::OwnedTensor logits(kernels::DType::f64, kernels::Device::cpu, {pass.tokens(), vocab});
  pass.logits(0, pass.tokens(), logits.tensor);
  std::vector<double> out;
  for (std::int64_t t = 0; t < pass.tokens(); ++t) {
    const double* row = logits.tensor.as<double>() + t * vocab;
    double sum = 0;
    for (std::int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v]);
    for (std::int64_t v = 0; v < vocab; ++v) out.push_back(row[v] - std::log(sum));
  }
  return out;
}

std::vector<double> values(const kernels::Tensor& tensor) {
  return kernels::host_values<double>(tensor, kernels::Stream{});
}

/// What the ablations refer to, from whole passes in double precision.
struct Plain {
  const model::Model& model;
  const ProbeTokens& tokens;
  model::Pass pass;
  std::vector<double> intact;                    // log p
  std::vector<std::vector<double>> alpha;        // by read [tokens, n+1]
  std::vector<std::vector<double>> donor;        // the same on the aligned tokens
  std::vector<std::vector<double>> source_mean;  // by read [d]

  Plain(const model::Model& model_, const ProbeTokens& tokens_, const ProbeTokens& aligned)
      : model(model_), tokens(tokens_), pass(model_, sequences, positions, model::Pass::Kind::infer) {
    pass.forward(aligned.ids);
    for (int r = 0; r < model.plan().num_routed(); ++r) donor.push_back(values(pass.alpha(r)));
    pass.forward(tokens.ids);
    intact = log_p(pass);
    for (int r = 0; r < model.plan().num_routed(); ++r) alpha.push_back(values(pass.alpha(r)));
    for (int r = 0; r < static_cast<int>(model.plan().reads.size()); ++r) {
      const std::vector<double> partial = values(pass.partial(r));
      std::vector<double>& mean = source_mean.emplace_back(d, 0.0);
      for (std::size_t i = 0; i < partial.size(); ++i) mean[i % d] += partial[i] / (sequences * positions);
    }
  }

  /// The weights of a read under an ablation of the sources in `of_set`, from its weights `was` [token, n]. Those of
  /// `mean` are zero.
  std::vector<double> changed_weights(Ablation ablation, int r, const std::vector<bool>& of_set,
                                      const std::vector<double>& was, std::uint64_t seed) const {
    const std::size_t n = of_set.size();
    std::vector<double> now = was;
    for (std::size_t token = 0; token < sequences * positions; ++token) {
      const std::int64_t q = static_cast<std::int64_t>(token) / positions,
                         t = static_cast<std::int64_t>(token) % positions;
      double kept = 0;
      for (std::size_t i = 0; i < n; ++i) kept += of_set[i] ? 0 : was[token * n + i];
      for (std::size_t i = 0; i < n; ++i) {
        double& weight = now[token * n + i];
        if (ablation == Ablation::mask) weight = of_set[i] ? 0 : weight / kept;
        if (!of_set[i]) continue;
        const auto other = static_cast<std::size_t>(q * positions + resample_donor(seed, q, t, positions));
        double mean = 0;
        for (std::size_t k = 0; k < sequences * positions; ++k)
          mean += alpha[static_cast<std::size_t>(r)][k * n + i] / (sequences * positions);
        if (ablation == Ablation::zero || ablation == Ablation::mean) weight = 0;
        if (ablation == Ablation::resample) weight = was[other * n + i];
        if (ablation == Ablation::freeze) weight = mean;
        if (ablation == Ablation::patch) weight = donor[static_cast<std::size_t>(r)][token * n + i];
      }
    }
    return now;
  }

  /// log p with the routes of `set` ablated. `mean` changes values, which a table of weights cannot express: its
  /// weights are zero, and the means are further sources.
  std::vector<double> ablated(Ablation ablation, const RouteSet& set, std::uint64_t seed) {
    model::RoutingIntervention changed;
    std::vector<kernels::OwnedTensor> weights, means;
    for (int r : set.reads) {
      const model::Read& read = model.plan().reads[static_cast<std::size_t>(r)];
      const std::size_t n = read.columns.size();
      std::vector<bool> of_set(n, false);
      for (std::size_t i = 0; i < n; ++i)
        of_set[i] = std::find(set.routes.begin(), set.routes.end(), std::pair{r, read.columns[i]}) != set.routes.end();
      const auto hit = std::count(of_set.begin(), of_set.end(), true);
      if (hit == 0 || (ablation == Ablation::mask && hit == static_cast<std::ptrdiff_t>(n))) continue;
      pass.forward(tokens.ids, &changed);  // with the reads before this one changed
      const std::vector<double> was = values(pass.alpha(r));
      const std::vector<double> now = changed_weights(ablation, r, of_set, was, seed);
      if (ablation == Ablation::mean) {
        model::ReadEdit& edit = changed.edits[r];
        for (std::size_t i = 0; i < n; ++i) {
          if (!of_set[i]) continue;
          const int source = i + 1 < n ? read.sources[i] : r;
          const kernels::Tensor mean =
              means.emplace_back(kernels::DType::f64, kernels::Device::cpu, std::initializer_list<std::int64_t>{d})
                  .tensor;
          std::copy(source_mean[static_cast<std::size_t>(source)].begin(),
                    source_mean[static_cast<std::size_t>(source)].end(), mean.as<double>());
          edit.extra.push_back({mean});
        }
        edit.alpha = [now, was, of_set, n](std::span<const double>, std::span<double> edited) {
          std::size_t next = 0;
          for (std::size_t token = 0; token < now.size() / n; ++token) {
            for (std::size_t i = 0; i < n; ++i) edited[next++] = now[token * n + i];
            for (std::size_t i = 0; i < n; ++i)
              if (of_set[i]) edited[next++] = was[token * n + i];
          }
        };
      } else {
        const kernels::Tensor weight =
            weights
                .emplace_back(kernels::DType::f64, kernels::Device::cpu,
                              std::initializer_list<std::int64_t>{sequences * positions, static_cast<std::int64_t>(n)})
                .tensor;
        std::copy(now.begin(), now.end(), weight.as<double>());
        changed.alpha_override[r] = weight;
      }
    }
    pass.forward(tokens.ids, &changed);
    return log_p(pass);
  }
};

/// Every measure of every set under every ablation of a probe in f32.
void expect_recomputed(const Mode& mode, const std::vector<std::string>& names, int least_tested) {
  const model::ModelConfig config = testing::micro_config(mode.residual, mode.source);
  const ProbeTokens tokens = testing::micro_tokens(sequences, positions),
                    aligned = testing::micro_tokens(sequences, positions, 14);
  const std::vector<Ablation> ablations = {Ablation::mask,     Ablation::zero,   Ablation::mean,
                                           Ablation::resample, Ablation::freeze, Ablation::patch};
  const model::Model fast = testing::micro_model(config), exact = testing::micro_model(config, f64);
  const ProbeRow row =
      testing::probe_of(fast, tokens, {.seed = 5, .ablations = ablations, .sets = names, .controls = 0}, 0, aligned);
  Plain plain(exact, tokens, aligned);
  // f32 sums of some 20 products in each of 6 layers, likelihoods of order 4.
  constexpr double tolerance = 1e-5;
  const std::vector<RouteSet> sets = route_sets(names, exact.plan());
  for (Ablation ablation : ablations) {
    SCOPED_TRACE(to_string(ablation));
    const AblationEffects& effects = row.effects(ablation);
    int tested = 0, moved = 0;
    for (std::size_t s = 0; s < sets.size(); ++s) {
      SCOPED_TRACE(sets[s].name);
      if (!(effects.sets[s].coverage > 0)) {
        for (double value : {effects.sets[s].delta_nll.value, effects.sets[s].kl, effects.sets[s].p_adjusted,
                             effects.sets[s].sequences_used})
          EXPECT_TRUE(std::isnan(value));
        continue;
      }
      ++tested;
      const std::vector<double> ablated = plain.ablated(ablation, sets[s], 5);
      double kl = 0, agree = 0;
      for (std::size_t q = 0; q < sequences; ++q) {
        double delta = 0;
        for (std::size_t t = 0; t + 1 < positions; ++t) {
          const std::size_t token = q * positions + t, target = static_cast<std::size_t>(tokens.ids[token + 1]);
          const double *p = &plain.intact[token * vocab], *other = &ablated[token * vocab];
          delta += (p[target] - other[target]) / (positions - 1);
          for (std::size_t v = 0; v < vocab; ++v) kl += std::exp(p[v]) * (p[v] - other[v]);
          agree += std::max_element(p, p + vocab) - p == std::max_element(other, other + vocab) - other;
        }
        EXPECT_NEAR(effects.sets[s].delta_nll_sequence[q], delta, tolerance);
        moved += std::abs(delta) > 10 * tolerance;
      }
      EXPECT_NEAR(effects.sets[s].kl, kl / (sequences * (positions - 1)), tolerance);
      EXPECT_NEAR(effects.sets[s].top1_agreement, agree / (sequences * (positions - 1)), 1e-12);
    }
    EXPECT_GE(tested, least_tested);
    EXPECT_GE(moved, tested * sequences * 9 / 10) << "too many effects are too small to tell";
  }
}

TEST_P(Recomputed, EveryAblationOfEverySlice) {
  expect_recomputed(GetParam(), {}, 14);
}

TEST(RecomputedSets, ReadsPairsAndRanges) {
  expect_recomputed(
      {"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
      {"3.attn:block_1", "5.mlp:embedding,current", "1.mlp-4.attn:history", "final:block_2", "all:current"}, 5);
}

// h of the final read is known on the host: its mean-ablated logits follow from plain loops, with nothing of a pass but
// what it left.
TEST(RecomputedSets, MeansAtTheFinalReadFollowFromPlainLoops) {
  const model::ModelConfig config =
      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  const ProbeTokens tokens = testing::micro_tokens(sequences, positions);
  const model::Model exact = testing::micro_model(config, f64);
  const ProbeRow row = testing::probe_of(
      exact, tokens, {.ablations = {Ablation::mean}, .sets = {"final:embedding,current"}, .controls = 0});
  Plain plain(exact, tokens, tokens);
  plain.pass.forward(tokens.ids);
  const int r = exact.plan().num_routed() - 1;
  const model::Read& read = exact.plan().reads.back();
  const std::size_t n = read.columns.size();
  std::vector<std::vector<double>> sources;
  for (std::size_t i = 0; i < n; ++i) sources.push_back(values(plain.pass.partial(i + 1 < n ? read.sources[i] : r)));
  const std::vector<double> head = values(exact.weights().head), gain = values(exact.weights().final_norm);
  for (std::size_t q = 0; q < sequences; ++q) {
    double delta = 0;
    for (std::size_t t = 0; t + 1 < positions; ++t) {
      const std::size_t token = q * positions + t;
      std::vector<double> h(d, 0.0), logit(vocab, 0.0);
      double squares = 0, sum = 0;
      for (std::size_t j = 0; j < d; ++j) {
        for (std::size_t i = 0; i < n; ++i) {
          const bool ablated = i == 0 || i + 1 == n;
          const auto source = static_cast<std::size_t>(i + 1 < n ? read.sources[i] : r);
          h[j] +=
              plain.alpha.back()[token * n + i] * (ablated ? plain.source_mean[source][j] : sources[i][token * d + j]);
        }
        squares += h[j] * h[j] / d;
      }
      for (std::size_t v = 0; v < vocab; ++v) {
        for (std::size_t j = 0; j < d; ++j)
          logit[v] += head[v * d + j] * gain[j] * h[j] / std::sqrt(squares + config.rms_norm_eps);
        sum += std::exp(logit[v]);
      }
      const auto target = static_cast<std::size_t>(tokens.ids[token + 1]);
      delta += (plain.intact[token * vocab + target] - (logit[target] - std::log(sum))) / (positions - 1);
    }
    EXPECT_NEAR(row.effects(Ablation::mean).sets[0].delta_nll_sequence[q], delta, 1e-11);
    EXPECT_GT(std::abs(delta), 1e-3);
  }
}

TEST(RecomputedSets, WeightsOfItselfPatchedInChangeNothing) {
  const ProbeTokens tokens = testing::micro_tokens(sequences, positions);
  for (model::AttnResSource source : {model::AttnResSource::block_sum, model::AttnResSource::cumulative}) {
    const ProbeRow row =
        testing::probe_of(testing::micro_model(testing::micro_config(model::Residual::block_attn_res, source)), tokens,
                          {.ablations = {Ablation::patch}, .controls = 1}, 0, tokens);
    const AblationEffects& effects = row.effects(Ablation::patch);
    for (std::size_t s = 0; s < effects.sets.size(); ++s) {
      if (!(effects.sets[s].coverage > 0)) continue;
      EXPECT_NEAR(effects.sets[s].delta_nll.value, 0, 1e-5);
      EXPECT_NEAR(effects.sets[s].control.delta_nll, 0, 1e-5);
      EXPECT_NEAR(effects.sets[s].kl, 0, 1e-5);
    }
  }
}

TEST(RecomputedSets, WrappedRoutingDoesNotDependOnContent) {
  const model::Model standard =
      testing::micro_model(testing::micro_config(model::Residual::standard, model::AttnResSource::cumulative));
  const model::Model wrapped = model::wrap(standard, model::Residual::block_attn_res, 3, 1.5);
  const ProbeRow row = testing::probe_of(wrapped, testing::micro_tokens(sequences, positions),
                                         {.ablations = {Ablation::freeze, Ablation::resample, Ablation::zero}});
  for (Ablation ablation : {Ablation::freeze, Ablation::resample}) {
    const AblationEffects& effects = row.effects(ablation);
    for (std::size_t s = 0; s < effects.sets.size(); ++s) {
      if (!(effects.sets[s].coverage > 0)) continue;
      EXPECT_NEAR(effects.sets[s].delta_nll.value, 0, 1e-5) << to_string(ablation) << " " << s;
      EXPECT_NEAR(effects.sets[s].control.excess.value, 0, 2e-5) << to_string(ablation) << " " << s;
    }
  }
  int varying = 0;
  for (double variance : row.alpha_variance) varying += variance > 1e-14;
  EXPECT_EQ(varying, 0);
  EXPECT_GT(std::abs(row.effects(Ablation::zero).sets[17].delta_nll.value), 1e-3)
      << "routes that matter, content or not";
}

}  // namespace
}  // namespace routescope::analysis
