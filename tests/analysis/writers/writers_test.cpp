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

ProbeIdentity identity_of(const model::Model& model, const ProbeTokens& tokens) {
  ProbeSettings settings;
  settings.writers = true;
  return identify(model.config(), tokens, settings);
}

Writers writers_of(const model::Model& model, const ProbeTokens& tokens) {
  return measure_writers(model, identity_of(model, tokens), 0, 0.01, *kernels::single_communicator());
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
      ASSERT_EQ(std::isnan(found.contribution[r * reads + w].value), w > r);
      if (w > r) continue;
      contribution += found.contribution[r * reads + w].value;
      norm_mass += found.norm_mass[r * reads + w].value;
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
      sum += found.embedding_part[at].value;
      if (GetParam().source == AttnResSource::block_sum) {
        EXPECT_NEAR(found.embedding_part[at].value, column == 0 ? row.contribution_mean[at] : 0, 1e-12) << r;
      }
    }
    EXPECT_NEAR(sum, found.contribution[r * reads].value, 1e-12) << r;
    // One source for each writer, so that its mass is the writer's.
    if (GetParam().residual != Residual::full_attn_res || GetParam().source != AttnResSource::block_sum) continue;
    for (std::size_t i = 0; i < plan.reads[r].columns.size(); ++i) {
      const std::size_t at = r * columns + static_cast<std::size_t>(plan.reads[r].columns[i]);
      EXPECT_NEAR(found.contribution[r * reads + i].value, row.contribution_mean[at], 1e-12) << r << " " << i;
      EXPECT_NEAR(found.norm_mass[r * reads + i].value, row.norm_mass_mean[at], 1e-12) << r << " " << i;
    }
  }
}

/// The outputs of all writers in a model of plain loops, and their weights in a read, from the definition.
struct PlainWriters {
  explicit PlainWriters(const model::Model& model, const ProbeTokens& tokens, std::size_t positions)
      : plan(model.plan()), plain(model), ids(tokens.ids), length(positions) {
    std::vector<testing::Rows> partial;
    intact = nll([&](const testing::PlainRead& read) {
      partial.push_back(read.values.back());
      return read.mixture();
    });
    for (std::size_t w = 0; w < plan.reads.size(); ++w) {
      output.push_back(partial[w]);
      for (std::size_t t = 0; plan.reads[w].continues && t < ids.size(); ++t)
        for (std::size_t i = 0; i < output[w][t].size(); ++i) output[w][t][i] -= partial[w - 1][t][i];
    }
  }
  std::vector<double> nll(const testing::PlainModel::Rule& rule) { return plain.nll(ids, length, rule, true); }

  double omega(const testing::PlainRead& read, std::size_t t, std::size_t w) const {
    double sum = 0;
    for (std::size_t s = 0; s < read.values.size(); ++s) {
      const std::vector<int>& sources = plan.reads[static_cast<std::size_t>(read.read)].sources;
      const int end = s + 1 < read.values.size() ? sources[s] : read.read;
      bool holds = static_cast<int>(w) <= end;
      for (int k = static_cast<int>(w) + 1; k <= end; ++k)
        holds = holds && plan.reads[static_cast<std::size_t>(k)].continues;
      if (holds) sum += read.alpha[t][s];
    }
    return sum;
  }

  const model::ReadPlan& plan;
  testing::PlainModel plain;
  std::vector<std::int32_t> ids;
  std::size_t length;
  std::vector<double> intact;
  std::vector<testing::Rows> output;  // [writer][token][d]
};

double product(const testing::Row& a, const testing::Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST_P(WritersOf, MassesAreThoseOfPlainLoops) {
  const model::Model model = this->model(in_f64);
  const ProbeTokens tokens = testing::micro_tokens(2, 8);
  const Writers found = writers_of(model, tokens);
  PlainWriters plain(model, tokens, 8);
  const std::size_t reads = plain.plan.reads.size(), count = tokens.ids.size();
  std::vector<double> contribution(reads * reads, 0.0), norm_mass(reads * reads, 0.0);
  plain.nll([&](const testing::PlainRead& read) {
    const testing::Rows h = read.mixture();
    for (std::size_t t = 0; t < count; ++t) {
      const auto length = [&](std::size_t w) {
        return plain.omega(read, t, w) * std::sqrt(product(plain.output[w][t], plain.output[w][t]));
      };
      double all = 0;
      for (std::size_t w = 0; w < reads; ++w) all += length(w);
      for (std::size_t w = 0; w < reads; ++w) {
        const std::size_t cell = static_cast<std::size_t>(read.read) * reads + w;
        contribution[cell] += plain.omega(read, t, w) * product(plain.output[w][t], h[t]) / product(h[t], h[t]) /
                              static_cast<double>(count);
        norm_mass[cell] += length(w) / all / static_cast<double>(count);
      }
    }
    return h;
  });
  for (std::size_t r = 0; r < reads; ++r) {
    for (std::size_t w = 0; w <= r; ++w) {
      EXPECT_NEAR(found.contribution[r * reads + w].value, contribution[r * reads + w], 1e-11) << r << " " << w;
      EXPECT_NEAR(found.norm_mass[r * reads + w].value, norm_mass[r * reads + w], 1e-11) << r << " " << w;
    }
  }
  for (std::size_t w = 0; w < reads; ++w) {
    double mean = 0;
    for (std::size_t r = w; r < reads; ++r) mean += contribution[r * reads + w] / static_cast<double>(reads - w);
    EXPECT_NEAR(found.mean_contribution[w].value, mean, 1e-11) << w;
    EXPECT_LT(found.mean_contribution[w].ci.lower, found.mean_contribution[w].value + 1e-15) << w;
  }
}

// The same change in a model of plain loops, as a rule for the mixture of each read.
TEST_P(WritersOf, EffectsAreThoseOfPlainLoops) {
  const model::Model model = this->model(in_f64);
  const ProbeTokens tokens = testing::micro_tokens(2, 8);
  const Writers found = writers_of(model, tokens);
  PlainWriters plain(model, tokens, 8);
  EXPECT_TRUE(std::isnan(found.zero[0].delta_nll.value)) << "zero of the embedding is not tested";
  for (std::size_t w = 0; w < plain.plan.reads.size(); ++w) {
    const testing::Rows& y = plain.output[w];
    testing::Row mean(y[0].size(), 0.0);
    for (const testing::Row& row : y)
      for (std::size_t i = 0; i < row.size(); ++i) mean[i] += row[i] / static_cast<double>(y.size());
    for (const bool zero : {true, false}) {
      if (zero && w == 0) continue;
      const std::vector<double> changed = plain.nll([&](const testing::PlainRead& read) {
        testing::Rows h = read.mixture();
        for (std::size_t t = 0; t < h.size(); ++t)
          for (std::size_t i = 0; i < h[t].size(); ++i)
            h[t][i] += plain.omega(read, t, w) * ((zero ? 0 : mean[i]) - y[t][i]);
        return h;
      });
      double sum = 0;
      for (std::size_t t = 0; t < changed.size(); ++t) sum += changed[t] - plain.intact[t];
      const double effect = (zero ? found.zero : found.mean)[w].delta_nll.value;
      EXPECT_NEAR(effect, sum / (2 * 7), 1e-9) << w << (zero ? " zero" : " mean");
      EXPECT_GT(std::abs(effect), 1e-7) << w << (zero ? " zero" : " mean");
    }
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
    for (std::size_t i = 0; i < plain.contribution.size(); ++i) {
      if (std::isnan(plain.contribution[i].value)) continue;
      EXPECT_NEAR(found.contribution[i].value, plain.contribution[i].value, 1e-9) << i;
      EXPECT_NEAR(found.norm_mass[i].value, plain.norm_mass[i].value, 1e-9) << i;
    }
    for (std::size_t w = 1; w < plain.zero.size(); ++w) {
      EXPECT_NEAR(found.zero[w].delta_nll.value, plain.zero[w].delta_nll.value, 1e-9) << w;
      EXPECT_GT(std::abs(plain.zero[w].delta_nll.value), 1e-6) << w;
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
  for (std::size_t r = mlp; r < reads; ++r) EXPECT_EQ(found.contribution[r * reads + mlp].value, 0) << r;
  EXPECT_EQ(found.zero[mlp].delta_nll.value, 0);
  for (std::size_t w = 1; w < reads; ++w) {
    if (w == mlp) continue;
    EXPECT_GT(std::abs(found.zero[w].delta_nll.value), 1e-6) << w;
  }
}

}  // namespace
}  // namespace routescope::analysis
