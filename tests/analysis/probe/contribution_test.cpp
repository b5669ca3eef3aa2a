// Contribution and norm-weighted mass (MATH.md, "Masses") of a probe.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analysis/results/row.h"
#include "analysis/routes/route_sets.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::analysis {
namespace {

using testing::probe_of;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

class Contribution : public ::testing::TestWithParam<model::AttnResSource> {
 protected:
  model::Model model(const model::ModelOptions& options = {}) const {
    return testing::micro_model(testing::micro_config(model::Residual::block_attn_res, GetParam()), options);
  }
};

/// [2][sequence][reads, columns], by plain loops over what the pass left.
std::vector<std::vector<std::vector<double>>> plain_masses(const model::Model& exact, const ProbeTokens& tokens) {
  const model::ReadPlan& plan = exact.plan();
  model::Pass pass(exact, tokens.sequences, tokens.positions, model::Pass::Kind::infer);
  pass.forward(tokens.ids);
  const auto d = index(exact.config().hidden_size), positions = index(tokens.positions);
  const std::vector<double> empty(index(plan.num_routed() * plan.num_columns()), 0.0);
  std::vector<std::vector<std::vector<double>>> out(2, std::vector(index(tokens.sequences), empty));
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[index(r)];
    const std::vector<double> alpha = kernels::host_values<double>(pass.alpha(r), kernels::Stream{});
    std::vector<std::vector<double>> values;
    for (int source : read.sources) values.push_back(kernels::host_values<double>(pass.partial(source), {}));
    values.push_back(kernels::host_values<double>(pass.partial(r), {}));
    for (std::size_t t = 0; t < tokens.ids.size(); ++t) {
      const double* weight = &alpha[t * values.size()];
      std::vector<double> h(d, 0.0), product(values.size(), 0.0), length(values.size(), 0.0);
      for (std::size_t i = 0; i < values.size(); ++i)
        for (std::size_t j = 0; j < d; ++j) h[j] += weight[i] * values[i][t * d + j];
      double square = 0, lengths = 0;
      for (double x : h) square += x * x;
      for (std::size_t i = 0; i < values.size(); ++i) {
        for (std::size_t j = 0; j < d; ++j) product[i] += weight[i] * values[i][t * d + j] * h[j];
        for (std::size_t j = 0; j < d; ++j) length[i] += std::pow(weight[i] * values[i][t * d + j], 2);
        lengths += std::sqrt(length[i]);
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto at = index(r * plan.num_columns() + read.columns[i]);
        out[0][t / positions][at] += product[i] / square / static_cast<double>(positions);
        out[1][t / positions][at] += std::sqrt(length[i]) / lengths / static_cast<double>(positions);
      }
    }
  }
  return out;
}

TEST_P(Contribution, MassesOfRoutesAndSetsArePlainLoops) {
  const model::Model exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const ProbeTokens tokens = testing::micro_tokens(3, 10);
  const ProbeRow row = probe_of(exact, tokens, {.ablations = {}});
  const std::vector<RouteSet> sets = slice_sets(exact.plan());
  const auto expected = plain_masses(exact, tokens);
  const std::vector<double>* found[2][3] = {{&row.contribution_mean, &row.contribution, &row.contribution_sequence},
                                            {&row.norm_mass_mean, &row.norm_mass, &row.norm_mass_sequence}};
  for (std::size_t kind = 0; kind < 2; ++kind) {
    SCOPED_TRACE(kind);
    const auto& [of_routes, of_sets, by_sequence] = found[kind];
    for (int r = 0; r < exact.plan().num_routed(); ++r) {
      const std::vector<int>& columns = exact.plan().reads[index(r)].columns;
      for (int column = 0; column < exact.plan().num_columns(); ++column) {
        const auto at = index(r * exact.plan().num_columns() + column);
        double mean = 0;
        for (const std::vector<double>& of_sequence : expected[kind]) mean += of_sequence[at] / 3;
        if (std::count(columns.begin(), columns.end(), column) > 0)
          EXPECT_NEAR((*of_routes)[at], mean, 1e-13) << r << " " << column;
        else
          EXPECT_TRUE(std::isnan((*of_routes)[at])) << r << " " << column;
      }
    }
    for (std::size_t s = 0; s < sets.size(); ++s) {
      double all = 0;
      for (std::size_t q = 0; q < 3; ++q) {
        double mass = 0;
        for (const auto& [read, column] : sets[s].routes)
          mass += expected[kind][q][index(read * exact.plan().num_columns() + column)];
        mass /= static_cast<double>(sets[s].reads.size());
        EXPECT_NEAR((*by_sequence)[s * 3 + q], mass, 1e-13) << sets[s].name;
        all += mass / 3;
      }
      EXPECT_NEAR((*of_sets)[s], all, 1e-13) << sets[s].name;
    }
  }
}

TEST_P(Contribution, SourcesOfAReadSumToOne) {
  const model::Model fast = model();
  const ProbeRow row = probe_of(fast, testing::micro_tokens(3, 10), {.ablations = {}});
  for (const std::vector<double>* mean : {&row.contribution_mean, &row.norm_mass_mean}) {
    for (int r = 0; r < fast.plan().num_routed(); ++r) {
      double sum = 0;
      for (int column : fast.plan().reads[index(r)].columns)
        sum += (*mean)[index(r * fast.plan().num_columns() + column)];
      EXPECT_NEAR(sum, 1, 1e-6) << r;  // f32, of terms up to a few times 1
    }
  }
  for (const std::vector<double>* of_sets : {&row.contribution, &row.norm_mass}) {
    for (std::size_t kind = 0; kind < num_slices / 3; ++kind)
      EXPECT_NEAR((*of_sets)[kind] + (*of_sets)[6 + kind] + (*of_sets)[12 + kind], 1, 1e-6) << slice_name(kind);
  }
}

// Keys are normalised: a longer vector keeps its weight. With queries of zero every weight is 1 / sources.
TEST_P(Contribution, ALongVectorOfSmallWeightContributesNearlyAll) {
  const model::Model model = this->model();
  for (const model::ReadWeights& read : model.weights().reads) kernels::fill(read.query, 0, kernels::Stream{});
  const kernels::Tensor embedding = model.weights().embedding;
  for (std::int64_t i = 0; i < embedding.numel(); ++i) embedding.as<float>()[i] *= 1e5F;
  const ProbeRow row = probe_of(model, testing::micro_tokens(2, 10), {.ablations = {}});
  const int r = 11;                                       // 5.mlp
  const auto at = index(r * model.plan().num_columns());  // the embedding's column
  const double sources = static_cast<double>(model.plan().reads[index(r)].columns.size());
  if (GetParam() == model::AttnResSource::cumulative) {
    // Every source holds the embedding, so that none stands out.
    EXPECT_NEAR(row.contribution_mean[at], 1 / sources, 0.02);
    return;
  }
  EXPECT_NEAR(row.alpha_mean[at], 1 / sources, 1e-6);
  EXPECT_GT(row.contribution_mean[at], 0.999);
  EXPECT_GT(row.norm_mass_mean[at], 0.999);
}

INSTANTIATE_TEST_SUITE_P(Sources, Contribution,
                         ::testing::Values(model::AttnResSource::block_sum, model::AttnResSource::cumulative),
                         [](const auto& source) {
                           return source.param == model::AttnResSource::block_sum ? "BlockSum" : "Cumulative";
                         });

}  // namespace
}  // namespace routescope::analysis
