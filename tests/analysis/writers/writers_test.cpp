// Masses and effects by writer in every residual mode.
#include "analysis/writers/writers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "analysis/probe/probe.h"
#include "model/wrap/wrap.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"
#include "tests/model/pass/plain_model.h"

namespace routescope::analysis {
namespace {

using model::AttnResSource;
using model::Residual;

const model::ModelOptions in_f64{.storage = kernels::DType::f64, .operands = kernels::DType::f64};

struct Mode {
  const char* name;
  Residual residual;
  AttnResSource source;
};
void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

Writers writers_of(const model::Model& model, const ProbeTokens& tokens) {
  return measure_writers(model, tokens, {}, 0, *kernels::single_communicator());
}

class WritersOf : public ::testing::TestWithParam<Mode> {
 protected:
  model::Model model(const model::ModelOptions& options) const {
    return testing::micro_model(testing::micro_config(GetParam().residual, GetParam().source, 4), options);
  }
};

TEST_P(WritersOf, SumToOne) {
  const model::Model model = this->model({});
  const Writers found = writers_of(model, testing::micro_tokens(3, 10));
  const std::size_t reads = model.plan().reads.size();
  for (std::size_t r = 0; r < reads; ++r) {
    double contribution = 0, norm_mass = 0;
    for (std::size_t w = 0; w < reads; ++w) {
      ASSERT_EQ(std::isnan(found.masses.contribution[r * reads + w]), w > r);
      if (w > r) continue;
      contribution += found.masses.contribution[r * reads + w];
      norm_mass += found.masses.norm_mass[r * reads + w];
    }
    EXPECT_NEAR(contribution, 1, 1e-9) << r;
    EXPECT_NEAR(norm_mass, 1, 1e-9) << r;
  }
}

// What the probe says of sources, which it computes by a kernel of its own.
TEST_P(WritersOf, TheEmbeddingsPartIsThatOfTheSourcesThatHoldIt) {
  const model::Model model = this->model(in_f64);
  const model::ReadPlan& plan = model.plan();
  if (plan.num_routed() == 0) return;
  const ProbeTokens tokens = testing::micro_tokens(3, 10);
  const Writers found = writers_of(model, tokens);
  const ProbeRow row = testing::probe_of(model, tokens, {.ablations = {}});
  const std::size_t columns = plan.columns.size(), reads = plan.reads.size();
  for (std::size_t r = 0; r < static_cast<std::size_t>(plan.num_routed()); ++r) {
    double sum = 0;
    for (int column : plan.reads[r].columns) {
      const std::size_t at = r * columns + static_cast<std::size_t>(column);
      sum += found.masses.embedding_part[at];
      if (GetParam().source == AttnResSource::block_sum) {
        EXPECT_NEAR(found.masses.embedding_part[at], column == 0 ? row.contribution_mean[at] : 0, 1e-12) << r;
      }
    }
    EXPECT_NEAR(sum, found.masses.contribution[r * reads], 1e-12) << r;
    // One source for each writer, so that its mass is the writer's.
    if (GetParam().residual != Residual::full_attn_res || GetParam().source != AttnResSource::block_sum) continue;
    for (std::size_t i = 0; i < plan.reads[r].columns.size(); ++i) {
      const std::size_t at = r * columns + static_cast<std::size_t>(plan.reads[r].columns[i]);
      EXPECT_NEAR(found.masses.contribution[r * reads + i], row.contribution_mean[at], 1e-12) << r << " " << i;
      EXPECT_NEAR(found.masses.norm_mass[r * reads + i], row.norm_mass_mean[at], 1e-12) << r << " " << i;
    }
  }
}

// The same change in a model of plain loops, as a rule for the mixture of each routed read.
TEST_P(WritersOf, EffectsAreThoseOfPlainLoops) {
  const model::Model model = this->model(in_f64);
  const model::ReadPlan& plan = model.plan();
  const ProbeTokens tokens = testing::micro_tokens(2, 8);
  const Writers found = writers_of(model, tokens);
  if (GetParam().source != AttnResSource::block_sum || !model.config().routed())
    return;  // whose final read has no rule
  testing::PlainModel plain(model);
  std::vector<testing::Rows> partial;  // intact
  const auto keep = [&](const testing::PlainRead& read) {
    partial.push_back(read.values.back());
    return read.mixture();
  };
  const std::vector<double> intact = plain.nll(tokens.ids, 8, keep);
  EXPECT_TRUE(std::isnan(found.effects.sets[0].delta_nll.value)) << "the embedding is not tested";
  for (std::size_t w = 1; w < plan.reads.size(); ++w) {
    testing::Rows y = partial[w];
    const bool continues = plan.reads[w].continues;
    for (std::size_t t = 0; continues && t < y.size(); ++t)
      for (std::size_t i = 0; i < y[t].size(); ++i) y[t][i] -= partial[w - 1][t][i];
    const std::vector<double> changed = plain.nll(tokens.ids, 8, [&](const testing::PlainRead& read) {
      testing::Rows h = read.mixture();
      for (std::size_t t = 0; t < h.size(); ++t) {
        double omega = 0;
        for (std::size_t s = 0; s < read.values.size(); ++s) {
          const std::vector<int>& sources = plan.reads[static_cast<std::size_t>(read.read)].sources;
          const int end = s < sources.size() ? sources[s] : read.read;
          bool holds = static_cast<int>(w) <= end;
          for (int k = static_cast<int>(w) + 1; k <= end; ++k)
            holds = holds && plan.reads[static_cast<std::size_t>(k)].continues;
          if (holds) omega += read.alpha[t][s];
        }
        for (std::size_t i = 0; i < h[t].size(); ++i) h[t][i] -= omega * y[t][i];
      }
      return h;
    });
    double sum = 0;
    for (std::size_t t = 0; t < intact.size(); ++t) sum += changed[t] - intact[t];
    const double effect = found.effects.sets[w].delta_nll.value;
    EXPECT_NEAR(effect, sum / (2 * 7), 1e-9) << w;
    EXPECT_GT(std::abs(effect), 1e-6) << w;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, WritersOf,
                         ::testing::Values(Mode{"Standard", Residual::standard, AttnResSource::block_sum},
                                           Mode{"BlockSum", Residual::block_attn_res, AttnResSource::block_sum},
                                           Mode{"BlockCumulative", Residual::block_attn_res, AttnResSource::cumulative},
                                           Mode{"FullSum", Residual::full_attn_res, AttnResSource::block_sum},
                                           Mode{"FullCumulative", Residual::full_attn_res, AttnResSource::cumulative}),
                         [](const auto& mode) { return mode.param.name; });

// At a bias of 60 the current source, which holds all writers, has all of the weight.
TEST(WritersOfAStandardModel, AreThoseOfItWrapped) {
  const ProbeTokens tokens = testing::micro_tokens(3, 8);
  const model::Model standard =
      testing::micro_model(testing::micro_config(Residual::standard, AttnResSource::block_sum, 4), in_f64);
  const Writers plain = writers_of(standard, tokens);
  for (const Residual residual : {Residual::block_attn_res, Residual::full_attn_res}) {
    const model::Model wrapped = model::wrap(standard, residual, 2, 60);
    const Writers found = writers_of(wrapped, tokens);
    ASSERT_EQ(writer_names(wrapped.plan()), writer_names(standard.plan()));
    for (std::size_t i = 0; i < plain.masses.contribution.size(); ++i) {
      if (std::isnan(plain.masses.contribution[i])) continue;
      EXPECT_NEAR(found.masses.contribution[i], plain.masses.contribution[i], 1e-9) << i;
      EXPECT_NEAR(found.masses.norm_mass[i], plain.masses.norm_mass[i], 1e-9) << i;
    }
    for (std::size_t w = 1; w < plain.effects.sets.size(); ++w) {
      EXPECT_NEAR(found.effects.sets[w].delta_nll.value, plain.effects.sets[w].delta_nll.value, 1e-9) << w;
      EXPECT_GT(std::abs(plain.effects.sets[w].delta_nll.value), 1e-6) << w;
    }
  }
}

// A sublayer whose output projection is zero writes nothing, and nothing depends on it.
TEST(WritersOfAStandardModel, OneThatWritesNothingHasNoMassAndNoEffect) {
  const model::Model model =
      testing::micro_model(testing::micro_config(Residual::standard, AttnResSource::block_sum, 4), in_f64);
  kernels::fill(model.parameter("model.layers.1.mlp.down_proj.weight"), 0, kernels::Stream{});
  const Writers found = writers_of(model, testing::micro_tokens(3, 8));
  const std::size_t reads = model.plan().reads.size(), mlp = 4;
  ASSERT_EQ(writer_names(model.plan())[mlp], "1.mlp");
  for (std::size_t r = mlp; r < reads; ++r) EXPECT_EQ(found.masses.contribution[r * reads + mlp], 0) << r;
  EXPECT_EQ(found.effects.sets[mlp].delta_nll.value, 0);
  for (std::size_t w = 1; w < reads; ++w) {
    if (w == mlp) continue;
    EXPECT_GT(std::abs(found.effects.sets[w].delta_nll.value), 1e-6) << w;
  }
}

}  // namespace
}  // namespace routescope::analysis
