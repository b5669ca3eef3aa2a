// Keys and values, and total, frozen and direct effects (MATH.md, "Routes as edges"): every effect of a probe is that
// of a model of plain loops in which a read is changed as the definition says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analysis/probe/probe.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"
#include "tests/model/pass/plain_model.h"

namespace routescope::analysis {
namespace {

using testing::PlainModel;
using testing::PlainRead;
using testing::Row;
using testing::Rows;

constexpr std::int64_t sequences = 2, positions = 10;
constexpr std::size_t tokens_in_all = sequences * positions;

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

enum class Way { total, frozen, direct };

/// The reads of an unchanged pass, in order.
std::vector<PlainRead> reads_of(PlainModel& plain, const ProbeTokens& tokens) {
  std::vector<PlainRead> reads;
  plain.nll(tokens.ids, positions, [&](const PlainRead& read) {
    reads.push_back(read);
    return read.mixture();
  });
  return reads;
}

class Paths : public ::testing::TestWithParam<Mode> {
 protected:
  model::Model model = testing::micro_model(testing::micro_config(GetParam().residual, GetParam().source));
  ProbeTokens tokens = testing::micro_tokens(sequences, positions),
              aligned = testing::micro_tokens(sequences, positions, 14);
  PlainModel plain{model};
  std::vector<PlainRead> intact = reads_of(plain, tokens), donors = reads_of(plain, aligned);
  std::vector<double> intact_nll = plain.nll(tokens.ids, positions);
  int last = static_cast<int>(model.plan().reads.size()) - 1;
  std::uint64_t seed = 5;

  /// <w g, v> / rms(v) of a read.
  double score(int r, const Row& v) const {
    const model::ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
    const auto *w = weights.query.as<float>(), *g = weights.key_gain.as<float>();
    double squares = 0, product = 0;
    for (std::size_t k = 0; k < v.size(); ++k) {
      squares += v[k] * v[k] / static_cast<double>(v.size());
      product += static_cast<double>(w[k]) * static_cast<double>(g[k]) * v[k];
    }
    return product / std::sqrt(squares + model.config().rms_norm_eps);
  }

  std::size_t other_token(std::size_t token) const {
    const auto q = static_cast<std::int64_t>(token) / positions, t = static_cast<std::int64_t>(token) % positions;
    return static_cast<std::size_t>(q * positions + resample_donor(seed, q, t, positions));
  }

  /// v'_i of a token: of `values`, the sources that the read has, in the place of v_i.
  Row other_value(Ablation ablation, int r, const std::vector<Rows>& values, std::size_t i, std::size_t token) const {
    const auto read = static_cast<std::size_t>(r);
    if (donor_of(ablation) == Donor::position) return values[i][other_token(token)];
    if (donor_of(ablation) == Donor::text) return donors[read].values[i][token];
    Row mean(values[i][token].size(), 0.0);
    for (const Row& v : intact[read].values[i])
      for (std::size_t k = 0; k < v.size(); ++k) mean[k] += v[k] / tokens_in_all;
    return mean;
  }

  /// The weight that takes the place of alpha_i, of those ablations that change it alone.
  double other_weight(Ablation ablation, int r, const Rows& alpha, std::size_t i, std::size_t token) const {
    const auto read = static_cast<std::size_t>(r);
    if (ablation == Ablation::resample) return alpha[other_token(token)][i];
    if (ablation == Ablation::patch) return donors[read].alpha[token][i];
    if (ablation == Ablation::zero) return 0;
    double mean = 0;
    for (const Row& row : intact[read].alpha) mean += row[i] / tokens_in_all;
    return mean;
  }

  /// h of a read with `gated` sources ablated: weights from `alpha`, keys from `keys`, values from `values`.
  Rows changed(Ablation ablation, int r, const std::vector<std::size_t>& gated, const Rows& alpha,
               const std::vector<Rows>& keys, const std::vector<Rows>& values) const {
    Rows h;
    for (std::size_t token = 0; token < alpha.size(); ++token) {
      Row weights = alpha[token];
      for (std::size_t i : gated) {
        if (ablation == Ablation::mask) weights[i] = 0;
        if (changes_keys(ablation))
          weights[i] *= std::exp(score(r, other_value(ablation, r, keys, i, token)) - score(r, keys[i][token]));
      }
      if (ablation == Ablation::mask || changes_keys(ablation)) {
        double sum = 0;
        for (double weight : weights) sum += weight;
        for (double& weight : weights) weight /= sum;
      } else if (!changes_values(ablation)) {
        for (std::size_t i : gated) weights[i] = other_weight(ablation, r, alpha, i, token);
      }
      Row& row = h.emplace_back(values[0][token].size(), 0.0);
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const bool other = changes_values(ablation) && std::find(gated.begin(), gated.end(), i) != gated.end();
        const Row v = other ? other_value(ablation, r, values, i, token) : values[i][token];
        for (std::size_t k = 0; k < v.size(); ++k) row[k] += weights[i] * v[k];
      }
    }
    return h;
  }

  /// nll of the ablated model minus that of the intact one, mean over predicted tokens, by sequence.
  std::vector<double> effect(Ablation ablation, const RouteSet& set, Way way) {
    const std::vector<int> reads = changed_reads(model.plan(), ablation, whole(set));
    const std::vector<double> nll = plain.nll(tokens.ids, positions, [&](const PlainRead& now) {
      const auto& columns = model.plan().reads[static_cast<std::size_t>(now.read)].columns;
      const PlainRead& was = intact[static_cast<std::size_t>(now.read)];
      const bool ablated = std::binary_search(reads.begin(), reads.end(), now.read),
                 sees_nothing = way == Way::direct && now.read != last;
      if (!ablated && sees_nothing) return was.mixture();
      PlainRead read = sees_nothing ? was : now;
      if (way == Way::frozen) read.alpha = was.alpha;
      if (!ablated) return read.mixture();
      std::vector<std::size_t> gated;
      for (std::size_t i = 0; i < columns.size(); ++i)
        if (std::find(set.routes.begin(), set.routes.end(), std::pair{now.read, columns[i]}) != set.routes.end())
          gated.push_back(i);
      return changed(ablation, now.read, gated, read.alpha, way == Way::frozen ? was.values : read.values, read.values);
    });
    std::vector<double> out(sequences, 0.0);
    for (std::size_t t = 0; t < nll.size(); ++t) out[t / positions] += (nll[t] - intact_nll[t]) / (positions - 1);
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Modes, Paths,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
                      Mode{"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum}),
    [](const auto& mode) { return std::string(mode.param.name); });

TEST_P(Paths, EveryAblationOfEverySliceByEveryWay) {
  const ProbeSettings settings{
      .seed = seed, .ablations = all_ablations(), .controls = 0, .frozen = true, .direct = true};
  const ProbeRow row = testing::probe_of(model, tokens, settings, 0, aligned);
  constexpr double tolerance = 1e-5;  // f32 sums of some 20 products in each of 6 layers, likelihoods of order 4
  const std::vector<RouteSet> sets = slice_sets(model.plan());
  for (Ablation ablation : all_ablations()) {
    SCOPED_TRACE(to_string(ablation));
    int compared = 0, moved = 0, repaired = 0, mediated = 0;
    for (std::size_t s = 0; s < sets.size(); ++s) {
      const SetEffect& found = row.effects(ablation).sets[s];
      if (!(found.coverage > 0)) {
        EXPECT_TRUE(std::isnan(found.frozen.delta_nll.value) && std::isnan(found.direct.difference.value));
        continue;
      }
      const std::vector<double> total = effect(ablation, sets[s], Way::total),
                                frozen = effect(ablation, sets[s], Way::frozen),
                                direct = effect(ablation, sets[s], Way::direct);
      for (std::size_t q = 0; q < sequences; ++q) {
        EXPECT_NEAR(found.delta_nll_sequence[q], total[q], tolerance) << sets[s].name;
        EXPECT_NEAR(found.frozen.delta_nll_sequence[q], frozen[q], tolerance) << sets[s].name;
        EXPECT_NEAR(found.direct.delta_nll_sequence[q], direct[q], tolerance) << sets[s].name;
        ++compared;
        moved += std::abs(total[q]) > 10 * tolerance;
        repaired += std::abs(frozen[q] - total[q]) > 10 * tolerance;
        mediated += std::abs(total[q] - direct[q]) > 10 * tolerance;
      }
      EXPECT_NEAR(found.frozen.difference.value, found.frozen.delta_nll.value - found.delta_nll.value, 1e-12);
      EXPECT_NEAR(found.direct.difference.value, found.delta_nll.value - found.direct.delta_nll.value, 1e-12);
    }
    EXPECT_GE(compared, 20);
    EXPECT_GE(moved, compared * 8 / 10) << "too many effects are too small to tell";
    EXPECT_GE(repaired, compared * 6 / 10);
    EXPECT_GE(mediated, compared * 6 / 10);
  }
}

// Nothing comes after the last read, so that there is nothing to hold or to go around.
TEST_P(Paths, OfTheLastReadAreOne) {
  const model::ReadPlan& plan = model.plan();
  const std::string name = plan.reads[static_cast<std::size_t>(plan.num_routed() - 1)].name;
  const ProbeRow row = testing::probe_of(
      model, tokens,
      {.ablations = {Ablation::mask, Ablation::zero}, .sets = {name + ":current"}, .frozen = true, .direct = true});
  for (const AblationEffects& effects : row.ablations) {
    const SetEffect& set = effects.sets.front();
    for (std::size_t q = 0; q < sequences; ++q) {
      EXPECT_NEAR(set.frozen.delta_nll_sequence[q], set.delta_nll_sequence[q], 1e-6);
      EXPECT_NEAR(set.direct.delta_nll_sequence[q], set.delta_nll_sequence[q], 1e-6);
    }
    EXPECT_GT(std::abs(set.delta_nll.value), 1e-3);
  }
}

TEST_P(Paths, CostWhatTheyCompute) {
  const ProbeSettings settings{.sets = {"2.mlp:embedding"}, .controls = 0};
  ProbeSettings frozen = settings, direct = settings;
  frozen.frozen = direct.direct = true;
  const auto reads_of = [&](const ProbeSettings& of) {
    const ProbeCost cost = testing::probe_of(model, tokens, of).cost;
    return cost.computed / static_cast<double>(tokens_in_all);
  };
  const double total = reads_of(settings), reads = last + 1;
  EXPECT_DOUBLE_EQ(reads_of(frozen) - total, reads - 5);
  EXPECT_DOUBLE_EQ(reads_of(direct) - total, 2);  // its own sublayer and the head
}

}  // namespace
}  // namespace routescope::analysis
