// Whole training runs on a CUDA device (emulated in test_simt, real in test_cuda) against runs on the CPU with the same
// seed and data.
#include <gtest/gtest.h>

#include <cmath>

#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/records/routing_view.h"
#include "model/files/safetensors.h"
#include "tests/model/pass/micro.h"
#include "tests/train/run/micro_run.h"
#include "train/plan/memory.h"

namespace routescope::testing {
namespace {

constexpr std::int64_t kSteps = 20;

std::vector<std::string> overrides(const micro::Mode& mode, const std::string& device,
                                   std::vector<std::string> more = {}, std::int64_t steps = kSteps) {
  more.push_back("device=" + device);
  more.push_back("model.residual=" + model::to_string(mode.residual));
  if (mode.residual != model::Residual::standard)
    more.push_back("model.attn_res.source=" + model::to_string(mode.source));
  for (const char* rare : {"checkpoint.every=0", "checkpoint.log_spaced_until=0", "valid.every=10", "routing.every=10",
                           "routing.per_token_every=10"})
    more.emplace_back(rare);
  more.push_back("train.steps=" + std::to_string(steps));
  return more;
}

/// The weights after the last step, by name.
std::map<std::string, std::vector<double>> final_weights(const std::filesystem::path& run) {
  const model::SafetensorsReader reader(run / "checkpoints" / checkpoint_names(run).back() / "model.safetensors");
  std::map<std::string, std::vector<double>> out;
  for (const model::SafetensorsEntry& entry : reader.entries()) {
    std::int64_t count = 1;
    for (const std::int64_t extent : entry.shape) count *= extent;
    std::vector<double>& values = out[entry.name];
    values.resize(static_cast<std::size_t>(count));
    reader.read(entry.name, entry.shape,
                kernels::Tensor(values.data(), kernels::DType::f64, kernels::Device::cpu, {count}));
  }
  return out;
}

/// ||a - b|| / ||b||. If b is zero (routing queries that have not changed), a must be zero, too.
double relative_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

template <class T>
void expect_near(const std::vector<T>& found, const std::vector<T>& expected, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(found[i])) << what << " [" << i << "]";
    } else {
      EXPECT_NEAR(found[i], expected[i], tolerance * std::max(1.0, std::fabs(static_cast<double>(expected[i]))))
          << what << " [" << i << "]";
    }
  }
}

/// Expects that two runs of kSteps steps, of which the first is the reference, have the same losses, weights and record
/// up to f32 rounding.
void expect_follows(const std::filesystem::path& expected_dir, const std::filesystem::path& found_dir) {
  const auto expected = data::RoutingRecordView::load(expected_dir / "routing.h5");
  const auto found = data::RoutingRecordView::load(found_dir / "routing.h5");
  ASSERT_EQ(found.train.size(), static_cast<std::size_t>(kSteps));
  ASSERT_EQ(expected.train.size(), found.train.size());
  for (std::size_t i = 0; i < found.train.size(); ++i) {
    EXPECT_NEAR(found.train[i].loss, expected.train[i].loss, 1e-5) << "step " << found.train[i].step;
    EXPECT_NEAR(found.train[i].grad_norm, expected.train[i].grad_norm, 1e-4 * expected.train[i].grad_norm);
  }
  ASSERT_EQ(found.valid.size(), expected.valid.size());
  for (std::size_t i = 0; i < found.valid.size(); ++i)
    EXPECT_NEAR(found.valid[i].loss, expected.valid[i].loss, 1e-5) << "step " << found.valid[i].step;

  const auto expected_weights = final_weights(expected_dir), found_weights = final_weights(found_dir);
  for (const auto& [name, values] : expected_weights) {
    // Builds without fused multiply-adds (Debug, sanitizers) came to 1.02e-4.
    EXPECT_LT(relative_distance(found_weights.at(name), values), 2e-4) << name;
  }

  EXPECT_EQ(found.info.reads, expected.info.reads);
  EXPECT_EQ(found.info.sources, expected.info.sources);
  EXPECT_EQ(found.info.probe_tokens, expected.info.probe_tokens);
  EXPECT_EQ(found.alpha_steps, expected.alpha_steps);
  ASSERT_EQ(found.snapshots.size(), expected.snapshots.size());
  for (std::size_t i = 0; i < found.snapshots.size(); ++i) {
    const data::RoutingSnapshot &a = found.snapshots[i], &b = expected.snapshots[i];
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.tokens_seen, b.tokens_seen);
    const std::string at = " at step " + std::to_string(a.step);
    expect_near(a.alpha_mean, b.alpha_mean, 1e-4, "alpha_mean" + at);
    expect_near(a.alpha_std, b.alpha_std, 1e-4, "alpha_std" + at);
    expect_near(a.alpha_entropy, b.alpha_entropy, 1e-4, "alpha_entropy" + at);
    expect_near(a.source_rms, b.source_rms, 1e-4, "source_rms" + at);
    expect_near(a.contribution_mean, b.contribution_mean, 1e-4, "contribution_mean" + at);
    expect_near(a.norm_mass_mean, b.norm_mass_mean, 1e-4, "norm_mass_mean" + at);
    expect_near(a.query, b.query, 1e-4, "query" + at);
    expect_near(a.gain, b.gain, 1e-4, "gain" + at);
    expect_near(a.bias, b.bias, 1e-4, "bias" + at);
  }
  const auto alpha = [](const std::filesystem::path& run) {
    return data::hdf5::File::open(run / "routing.h5").read<float>("alpha");
  };
  expect_near(alpha(found_dir), alpha(expected_dir), 1e-3, "alpha");  // stored as f16: 2^-11 and a rounding across it
}

class CudaTraining : public ::testing::TestWithParam<micro::Mode> {
 protected:
  static void SetUpTestSuite() {
    if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
  MicroRun runs_;
};

TEST_P(CudaTraining, FollowsTheCpu) {
  runs_.train("cpu", overrides(GetParam(), "cpu"));
  runs_.train("cuda", overrides(GetParam(), "cuda"));
  expect_follows(runs_.dir("cpu"), runs_.dir("cuda"));
}

class CudaSettings : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
  MicroRun runs_;
};

// These tests do not depend on the reads: one mode with completed sources and one without are enough.
class CudaRounding : public CudaTraining {};

TEST_P(CudaRounding, TwoRunsHaveTheSameBitsAlsoWithGraphsAndRecomputation) {
  const auto with = [&](const std::string& more) {
    return overrides(GetParam(), "cuda", {"kernels.reads=fused", more}, 4);
  };
  runs_.train("plain", with("kernels.recompute=none"));
  runs_.train("recomputed", with("kernels.recompute=attention"));
  runs_.train("graph", with("kernels.graph=on"));
  expect_same_run(runs_.dir("recomputed"), runs_.dir("plain"));
  expect_same_run(runs_.dir("graph"), runs_.dir("plain"));
}

TEST_P(CudaRounding, Bf16LearnsAsF32Does) {
  runs_.train("f32", overrides(GetParam(), "cpu"));
  runs_.train("bf16", overrides(GetParam(), "cuda", {"precision=bf16"}));
  const auto exact = data::RoutingRecordView::load(runs_.dir("f32") / "routing.h5");
  const auto rounded = data::RoutingRecordView::load(runs_.dir("bf16") / "routing.h5");
  // The first losses have the same weights: bf16 changes each logit (of order 0.1 in a new model) by a share of 2^-8.
  EXPECT_NEAR(rounded.train.front().loss, exact.train.front().loss, 1e-2);
  EXPECT_NE(rounded.train.front().loss, exact.train.front().loss);
  // After 20 steps both have learned the same, up to a twentieth.
  const double learnt = exact.train.front().loss - exact.train.back().loss;
  ASSERT_GT(learnt, 0.2);
  EXPECT_NEAR(rounded.train.back().loss, exact.train.back().loss, learnt / 20);
}

TEST_F(CudaSettings, AutoKeepsTheLevelOfTheRunThatItResumes) {
  const auto level = [&](const std::string& run, const std::string& asked) {
    train::TrainConfig config = runs_.config(
        run, {"device=cuda", "train.steps=1", "train.schedule.warmup_steps=0", "kernels.recompute=" + asked});
    train::resolve_recompute(config);
    return config.kernels.recompute;
  };
  EXPECT_EQ(level("run", "auto"), "none");  // a micro model fits without recomputation
  runs_.train("run", {"device=cuda", "train.steps=1", "train.schedule.warmup_steps=0", "kernels.recompute=norms"});
  EXPECT_EQ(level("run", "auto"), "norms");
  EXPECT_EQ(level("run", "swiglu"), "swiglu");
  EXPECT_EQ(level("other", "auto"), "none");
}

TEST_F(CudaSettings, ARunThatDoesNotFitIsRefusedWithTheMicroBatchThatDoes) {
  train::TrainConfig config =
      runs_.config("run", {"device=cuda", "model.hidden_size=131072", "model.num_hidden_layers=4000"});
  try {
    train::resolve_recompute(config);
    FAIL() << "a run of terabytes was accepted";
  } catch (const data::Error& error) {
    EXPECT_NE(std::string(error.what()).find("train.micro_batch: found 2, which needs"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("expected at most 0"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, CudaTraining, ::testing::ValuesIn(micro::modes()),
                         [](const auto& mode) { return mode.param.name; });

TEST_F(CudaSettings, ReadsInTwoPhasesFollowTheCpusFusedOnes) {
  const micro::Mode& mode = micro::modes()[1];  // blocks too small for auto to choose two phases
  runs_.train("cpu", overrides(mode, "cpu"));
  runs_.train("cuda", overrides(mode, "cuda", {"kernels.reads=two_phase"}));
  expect_follows(runs_.dir("cpu"), runs_.dir("cuda"));
}

INSTANTIATE_TEST_SUITE_P(Modes, CudaRounding, ::testing::Values(micro::modes()[0], micro::modes()[1]),
                         [](const auto& mode) { return mode.param.name; });

}  // namespace
}  // namespace routescope::testing
