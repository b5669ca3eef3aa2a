// A routing snapshot against the weights of the pass, summed token by token in double precision.
#include "train/run/recorder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "data/tokens/shard.h"
#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

constexpr double kFloat = static_cast<double>(std::numeric_limits<float>::epsilon());

class Recorder : public ::testing::TestWithParam<const char*> {
 protected:
  Recorder()
      : config_(micro_.config(
            "unused", {std::string("model.attn_res.source=") + GetParam(), "model.attn_res.recency_bias=0.75"})),
        model_(config_.model, config_.model_options()),
        stream_(config_.data.valid, config_.model.vocab_size),
        batches_(stream_, kLength, 1, 1) {
    model_.initialize(5);
    // Queries that are not zero: with the initial zeros routing would be uniform.
    for (const model::ReadWeights& read : model_.weights().reads) {
      kernels::random_normal(read.query, 1.0, 6, static_cast<std::uint64_t>(++filled_), kernels::Stream{});
      kernels::random_normal(read.key_gain, 1.0, 7, static_cast<std::uint64_t>(filled_), kernels::Stream{});
      if (read.bias) kernels::fill(read.bias, 0.1 * filled_, kernels::Stream{});
    }
    model_.refresh_operands();
  }

  static constexpr std::int64_t kLength = 16, kSequences = 3;
  testing::MicroRun micro_;
  TrainConfig config_;
  model::Model model_;
  data::TokenStream stream_;
  data::Batches batches_;
  int filled_ = 0;
};

/// [2, n+1] contribution and norm-weighted mass of a read's sources, mean over the tokens, by plain loops.
std::vector<double> mean_masses(const model::Pass& pass, int r) {
  const std::vector<double> alpha = kernels::host_values<double>(pass.alpha(r), pass.stream());
  std::vector<std::vector<double>> values;
  for (const kernels::Tensor& value : pass.source_values(r))
    values.push_back(kernels::host_values<double>(value, pass.stream()));
  const std::size_t n = values.size(), tokens = alpha.size() / n, d = values[0].size() / tokens;
  std::vector<double> out(2 * n, 0.0);
  for (std::size_t t = 0; t < tokens; ++t) {
    double lengths = 0, square = 0;
    std::vector<double> product(n, 0.0), length(n, 0.0);
    for (std::size_t j = t * d; j < (t + 1) * d; ++j) {
      double h = 0;
      for (std::size_t i = 0; i < n; ++i) h += alpha[t * n + i] * values[i][j];
      square += h * h;
      for (std::size_t i = 0; i < n; ++i) product[i] += alpha[t * n + i] * values[i][j] * h;
      for (std::size_t i = 0; i < n; ++i) length[i] += std::pow(alpha[t * n + i] * values[i][j], 2);
    }
    for (double one : length) lengths += std::sqrt(one);
    for (std::size_t i = 0; i < n; ++i) {
      out[i] += product[i] / square / static_cast<double>(tokens);
      out[n + i] += std::sqrt(length[i]) / lengths / static_cast<double>(tokens);
    }
  }
  return out;
}

TEST_P(Recorder, SnapshotFollowsFromThePass) {
  const RoutingRecorder recorder(model_, {batches_.in_order(0, kSequences).inputs, {4, 4, 9}}, kLength);
  model::Pass by_two(model_, 2, kLength, model::Pass::Kind::train);  // 3 sequences: the last batch is filled up
  std::vector<float> alpha;
  const data::RoutingSnapshot snapshot = recorder.snapshot(by_two, *kernels::single_communicator(), 17, 170, &alpha);
  EXPECT_EQ(snapshot.step, 17);
  EXPECT_EQ(snapshot.tokens_seen, 170);

  model::Pass whole(model_, kSequences, kLength, model::Pass::Kind::infer);
  whole.forward(batches_.in_order(0, kSequences).inputs);
  const model::ReadPlan& plan = model_.plan();
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  const auto tokens = static_cast<std::size_t>(kSequences * kLength);
  ASSERT_EQ(snapshot.alpha_mean.size(), reads * columns);
  ASSERT_EQ(alpha.size(), reads * tokens * columns);
  bool varies = false;
  for (std::size_t r = 0; r < reads; ++r) {
    SCOPED_TRACE(plan.reads[r].name);
    const std::vector<int>& at = plan.reads[r].columns;
    const kernels::Tensor weights = whole.alpha(static_cast<int>(r));
    const std::vector<kernels::Tensor> inv_rms = whole.source_inv_rms(static_cast<int>(r));
    double entropy = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const auto source = static_cast<std::size_t>(std::find(at.begin(), at.end(), static_cast<int>(c)) - at.begin());
      const std::size_t cell = r * columns + c;
      if (source == at.size()) {
        EXPECT_TRUE(std::isnan(snapshot.alpha_mean[cell]));
        EXPECT_TRUE(std::isnan(snapshot.alpha_std[cell]));
        EXPECT_TRUE(std::isnan(snapshot.source_rms[cell]));
        for (std::size_t t = 0; t < tokens; ++t) EXPECT_TRUE(std::isnan(alpha[(r * tokens + t) * columns + c]));
        continue;
      }
      double sum = 0, squares = 0, rms = 0;
      for (std::size_t t = 0; t < tokens; ++t) {
        const double a = static_cast<double>(weights.as<float>()[t * at.size() + source]);
        // Products in a batch of another size may round differently.
        EXPECT_NEAR(alpha[(r * tokens + t) * columns + c], a, 512 * kFloat);
        sum += a;
        squares += a * a;
        rms += 1 / static_cast<double>(inv_rms[source].as<float>()[t]);
        if (a > 0) entropy -= a * std::log(a);
      }
      const double mean = sum / static_cast<double>(tokens),
                   variance = squares / static_cast<double>(tokens) - mean * mean;
      EXPECT_NEAR(snapshot.alpha_mean[cell], mean, 512 * kFloat);
      EXPECT_NEAR(snapshot.alpha_std[cell], std::sqrt(std::max(0.0, variance)), std::sqrt(512 * kFloat));
      EXPECT_NEAR(snapshot.source_rms[cell], rms / static_cast<double>(tokens),
                  512 * kFloat * rms / static_cast<double>(tokens));
      varies = varies || variance > 1e-4;
    }
    EXPECT_NEAR(snapshot.alpha_entropy[r], entropy / static_cast<double>(tokens), 2048 * kFloat);
    for (std::size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(snapshot.query[r * 32 + i], model_.weights().reads[r].query.as<float>()[i]);
      EXPECT_EQ(snapshot.gain[r * 32 + i], model_.weights().reads[r].key_gain.as<float>()[i]);
    }
    const bool learned = config_.model.has_learned_bias();
    EXPECT_EQ(snapshot.bias[r], learned ? *model_.weights().reads[r].bias.as<float>() : 0.75F);
  }
  EXPECT_TRUE(varies) << "routing does not depend on the token: the test shows nothing";
}

TEST_P(Recorder, MassesOfASnapshotFollowFromThePass) {
  const RoutingRecorder recorder(model_, {batches_.in_order(0, kSequences).inputs, {4, 4, 9}}, kLength);
  model::Pass by_two(model_, 2, kLength, model::Pass::Kind::train);
  const data::RoutingSnapshot snapshot = recorder.snapshot(by_two, *kernels::single_communicator(), 17, 170, nullptr);
  model::Pass whole(model_, kSequences, kLength, model::Pass::Kind::infer);
  whole.forward(batches_.in_order(0, kSequences).inputs);
  const model::ReadPlan& plan = model_.plan();
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  ASSERT_EQ(snapshot.contribution_mean.size(), snapshot.alpha_mean.size());
  ASSERT_EQ(snapshot.norm_mass_mean.size(), snapshot.alpha_mean.size());
  for (std::size_t r = 0; r < static_cast<std::size_t>(plan.num_routed()); ++r) {
    SCOPED_TRACE(plan.reads[r].name);
    const std::vector<int>& at = plan.reads[r].columns;
    const std::vector<double> masses = mean_masses(whole, static_cast<int>(r));
    double contributions = 0, norm_masses = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const float contribution = snapshot.contribution_mean[r * columns + c],
                  norm_mass = snapshot.norm_mass_mean[r * columns + c];
      const auto source = static_cast<std::size_t>(std::find(at.begin(), at.end(), static_cast<int>(c)) - at.begin());
      EXPECT_EQ(std::isnan(contribution), source == at.size());
      EXPECT_EQ(std::isnan(norm_mass), source == at.size());
      if (source == at.size()) continue;
      EXPECT_NEAR(contribution, masses[source], 2048 * kFloat);
      EXPECT_NEAR(norm_mass, masses[at.size() + source], 2048 * kFloat);
      contributions += static_cast<double>(contribution);
      norm_masses += static_cast<double>(norm_mass);
    }
    EXPECT_NEAR(contributions, 1, 2048 * kFloat);
    EXPECT_NEAR(norm_masses, 1, 2048 * kFloat);
  }
}

TEST_P(Recorder, InfoNamesTheAxes) {
  const RoutingRecorder recorder(model_, {batches_.in_order(0, kSequences).inputs, {4, 4, 9}}, kLength);
  const data::RoutingRecordInfo info = recorder.info("a: 1\n");
  const std::size_t reads = std::string(GetParam()) == "block_sum" ? 9 : 8;
  ASSERT_EQ(info.reads.size(), reads);
  EXPECT_EQ(info.reads[0], "0.attn");
  EXPECT_EQ(info.sublayer[1], "mlp");
  EXPECT_EQ(info.layer[7], 3);
  EXPECT_EQ(info.depth[0], "early");
  EXPECT_EQ(info.depth[7], "late");
  EXPECT_EQ(info.sources.front(), "embedding");
  EXPECT_EQ(info.sources.back(), "current");
  EXPECT_EQ(info.probe_tokens, batches_.in_order(0, kSequences).inputs);
  EXPECT_EQ(info.probe_documents, (std::vector<std::int64_t>{4, 4, 9}));
  EXPECT_EQ(info.config, "a: 1\n");
}

INSTANTIATE_TEST_SUITE_P(Sources, Recorder, ::testing::Values("block_sum", "cumulative"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace routescope::train
