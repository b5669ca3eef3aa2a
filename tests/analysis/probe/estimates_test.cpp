// What an estimate is made of, by plain loops over masked passes; and how it ranks the routes of a trained model.
#include "analysis/probe/estimates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "analysis/probe/atlas.h"
#include "kernels/random.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {
namespace {

/// What the sublayer of every read makes with one source masked or none, from the pass that masks it; gradients there
/// from a pass that keeps everything.
class PassGradients {
 public:
  PassGradients(const model::Model& model, const analysis::ProbeTokens& tokens, std::uint64_t seed)
      : model_(model), tokens_(tokens), pass_(model, tokens.sequences, tokens.positions, model::Pass::Kind::train) {
    kernels::OwnedTensor by_products(kernels::DType::f64, kernels::Device::cpu, {model.layout().total()});
    const auto keep = [&](std::map<int, std::vector<double>>& to) {
      return [&](int r, kernels::Tensor dx, kernels::Tensor dy) {
        to[r] = kernels::host_values<double>(dy ? dy : dx, pass_.stream());
      };
    };
    pass_.forward(tokens.ids);
    pass_.backward(analysis::next_tokens(tokens.ids, tokens.positions), 1.0, by_products.tensor, keep(data_));
    pass_.backward(drawn_labels(seed), 1.0, by_products.tensor, keep(drawn_));
  }

  /// [sequence] of source i of read r.
  std::vector<double> estimate(int r, std::size_t i) {
    const int column = model_.plan().reads[static_cast<std::size_t>(r)].columns[i];
    model::RoutingIntervention mask;
    mask.logit_bias.assign(model_.plan().reads.size(),
                           std::vector<double>(static_cast<std::size_t>(model_.plan().num_columns()), 0.0));
    mask.logit_bias[static_cast<std::size_t>(r)][static_cast<std::size_t>(column)] = -INFINITY;
    const std::vector<double> masked = outputs(mask, r), intact = outputs({}, r);
    const std::size_t d = static_cast<std::size_t>(model_.config().hidden_size), all = masked.size() / d;
    std::vector<double> out(static_cast<std::size_t>(tokens_.sequences), 0.0);
    for (std::size_t t = 0; t < all; ++t) {
      double linear = 0, drawn = 0;
      for (std::size_t k = t * d; k < (t + 1) * d; ++k) {
        linear += data_[r][k] * (masked[k] - intact[k]);
        drawn += drawn_[r][k] * (masked[k] - intact[k]);
      }
      out[t / static_cast<std::size_t>(tokens_.positions)] += linear + drawn * drawn / 2;
    }
    return out;
  }

 private:
  /// By inverting the distribution function, as route_estimates() is described to draw.
  std::vector<std::int32_t> drawn_labels(std::uint64_t seed) {
    const std::int64_t vocab = model_.config().vocab_size;
    const kernels::OwnedTensor logits(kernels::DType::f64, kernels::Device::cpu, {pass_.tokens(), vocab});
    pass_.logits(0, pass_.tokens(), logits.tensor);
    std::vector<std::int32_t> labels;
    for (std::int64_t t = 0; t < pass_.tokens(); ++t) {
      const double* row = logits.tensor.as<double>() + t * vocab;
      const double uniform =
          kernels::to_uniform(kernels::random_words(seed, 0x6c6162656c, static_cast<std::uint64_t>(t)).word[0]);
      double sum = 0, cumulated = 0;
      for (std::int64_t id = 0; id < vocab; ++id) sum += std::exp(row[id]);
      std::int32_t label = 0;
      while ((cumulated += std::exp(row[label]) / sum) <= uniform) ++label;
      labels.push_back((t + 1) % tokens_.positions == 0 ? -1 : label);
    }
    return labels;
  }

  /// The partial after the sublayer of read r, which differs by its output alone; of the final read x, by plain loops.
  std::vector<double> outputs(const model::RoutingIntervention& intervention, int r) {
    pass_.forward(tokens_.ids, &intervention);
    const model::Read& read = model_.plan().reads[static_cast<std::size_t>(r)];
    if (read.sublayer != model::Sublayer::final)
      return kernels::host_values<double>(pass_.partial(r + 1), pass_.stream());
    const std::vector<double> alpha = kernels::host_values<double>(pass_.alpha(r), pass_.stream());
    const std::size_t n = read.columns.size(), d = static_cast<std::size_t>(model_.config().hidden_size);
    const double* gain = model_.weights().final_norm.as<double>();
    std::vector<double> x(static_cast<std::size_t>(pass_.tokens()) * d, 0.0);
    for (std::size_t t = 0; t < x.size() / d; ++t) {
      double squares = 0;
      for (std::size_t k = 0; k < d; ++k) {
        for (std::size_t i = 0; i < n; ++i)
          x[t * d + k] += alpha[t * n + i] * pass_.source_values(r)[i].as<double>()[t * d + k];
        squares += x[t * d + k] * x[t * d + k];
      }
      const double rms = std::sqrt(squares / static_cast<double>(d) + model_.config().rms_norm_eps);
      for (std::size_t k = 0; k < d; ++k) x[t * d + k] *= gain[k] / rms;
    }
    return x;
  }

  const model::Model& model_;
  const analysis::ProbeTokens& tokens_;
  model::Pass pass_;
  std::map<int, std::vector<double>> data_, drawn_;
};

void expect_estimates_of_plain_loops(const model::Model& model) {
  const std::uint64_t seed = 21;
  const analysis::ProbeTokens tokens = micro_tokens(3, 6);
  const std::vector<double> found = analysis::route_estimates(model, tokens, 0, tokens.sequences, seed);
  const auto columns = static_cast<std::size_t>(model.plan().num_columns());
  const std::size_t routes = static_cast<std::size_t>(model.plan().num_routed()) * columns;
  PassGradients gradients(model, tokens, seed);
  double largest = 0, worst = 0;
  for (const auto& [r, column] : analysis::maskable_routes(model.plan())) {
    const std::vector<int>& of_read = model.plan().reads[static_cast<std::size_t>(r)].columns;
    const auto i = static_cast<std::size_t>(std::find(of_read.begin(), of_read.end(), column) - of_read.begin());
    const std::vector<double> expected = gradients.estimate(r, i);
    for (std::size_t q = 0; q < expected.size(); ++q) {
      const double one =
          found[(2 * q + 1) * routes + static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(column)];
      ASSERT_TRUE(std::isfinite(one)) << r << " " << column;
      largest = std::max(largest, std::abs(expected[q]));
      worst = std::max(worst, std::abs(one - expected[q]));
    }
  }
  std::printf("estimates up to %.2g, off by %.1e\n", largest, worst);
  EXPECT_GT(largest, 0.1);
  EXPECT_LT(worst, 1e-9 * largest);
}

constexpr model::ModelOptions exact{.storage = kernels::DType::f64, .operands = kernels::DType::f64};

TEST(RouteEstimates, AreMadeOfTheExactChangeOfTheSublayer) {
  for (const auto& [residual, source] : {std::pair{model::Residual::block_attn_res, model::AttnResSource::block_sum},
                                         std::pair{model::Residual::block_attn_res, model::AttnResSource::cumulative},
                                         std::pair{model::Residual::full_attn_res, model::AttnResSource::block_sum}})
    expect_estimates_of_plain_loops(micro_model(micro_config(residual, source, 4), exact));
}

/// Nearly all the weight on one source: alpha of the others is lost beside it, in f64 too.
TEST(RouteEstimates, MaskASourceThatHasNearlyAllTheWeight) {
  model::ModelConfig config = micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum, 4);
  for (const double bias : {30.0, 800.0}) {
    config.recency_bias = bias;
    expect_estimates_of_plain_loops(micro_model(config, exact));
  }
}

TEST(RouteEstimates, DrawLabelsFromTheSoftmax) {
  const std::vector<double> logits{1.0, -INFINITY, 3.0, 2.0};
  const int draws = 100000;
  std::vector<double> share(logits.size(), 0.0);
  for (int i = 0; i < draws; ++i)
    share[static_cast<std::size_t>(analysis::draw_label(logits, (i + 0.5) / draws))] += 1.0 / draws;
  const double sum = std::exp(1.0) + std::exp(3.0) + std::exp(2.0);
  for (std::size_t id = 0; id < logits.size(); ++id) EXPECT_NEAR(share[id], std::exp(logits[id]) / sum, 2.0 / draws);
  EXPECT_EQ(analysis::draw_label(std::vector<double>{0.0, 0.0, -INFINITY}, 1 - 1e-17), 1);
}

/// Two chains at a time, so that there is something to attend to: each id is a function of the one two before it, but
/// for one in ten.
analysis::ProbeTokens chains(std::int64_t sequences, std::int64_t positions, std::uint64_t seed) {
  analysis::ProbeTokens tokens = micro_tokens(sequences, positions, seed);
  std::mt19937_64 random(seed + 1);
  for (std::int64_t i = 0; i < sequences * positions; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (i % positions >= 2 && random() % 10 > 0) tokens.ids[at] = (tokens.ids[at - 2] * 5 + 3) % 37;
  }
  return tokens;
}

/// Adam without decay, at a constant rate, on fresh text.
void train(model::Model& model, int steps) {
  const kernels::OwnedTensor gradients(kernels::DType::f32, kernels::Device::cpu, {model.layout().total()});
  const std::span<float> weight = model.flat().span<float>(), slope = gradients.tensor.span<float>();
  std::vector<double> first(weight.size(), 0.0), second(weight.size(), 0.0);
  model::Pass pass(model, 16, 16, model::Pass::Kind::train);
  for (int step = 1; step <= steps; ++step) {
    const analysis::ProbeTokens text = chains(16, 16, 1000 + static_cast<std::uint64_t>(step));
    kernels::fill(gradients.tensor, 0.0, kernels::Stream{});
    pass.accumulate(text.ids, analysis::next_tokens(text.ids, 16), 1.0 / (16 * 15), gradients.tensor);
    const double correction = std::sqrt(1 - std::pow(0.99, step)) / (1 - std::pow(0.9, step));
    for (std::size_t i = 0; i < weight.size(); ++i) {
      first[i] += 0.1 * (slope[i] - first[i]);
      second[i] += 0.01 * (slope[i] * slope[i] - second[i]);
      weight[i] -= static_cast<float>(5e-3 * correction * first[i] / (std::sqrt(second[i]) + 1e-8));
    }
    model.refresh_operands();
  }
}

TEST(RouteEstimates, RankTheRoutesOfATrainedModel) {
  for (const auto source : {model::AttnResSource::block_sum, model::AttnResSource::cumulative}) {
    model::ModelConfig config = micro_config(model::Residual::block_attn_res, source);
    config.initializer_range = 0.1;
    model::Model model(config, {});
    model.initialize(17);
    train(model, 300);
    const analysis::Atlas atlas = analysis::make_atlas(
        model, analysis::identify(config, chains(32, 16, 5), {.atlas_checks = analysis::most_atlas_checks}), 0,
        *kernels::single_communicator());
    double largest = 0;
    for (const analysis::CheckedRoute& route : atlas.checked) largest = std::max(largest, route.true_effect.value);
    std::printf("%zu routes, effects up to %.2f nats: rank correlation of the estimate %.3f, of first order %.3f\n",
                atlas.checked.size(), largest, atlas.rank_correlation, atlas.first_order_rank_correlation);
    EXPECT_GT(largest, 0.1);
    EXPECT_GT(atlas.rank_correlation, 0.8);
    EXPECT_GT(atlas.rank_correlation, atlas.first_order_rank_correlation);
  }
}

}  // namespace
}  // namespace routescope::testing
