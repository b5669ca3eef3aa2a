// The forecast of a step: what it sends, and what of that computation hides.
#include "train/plan/forecast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/pass/parameters.h"
#include "tests/train/plan/plan_case.h"
#include "train/plan/calibrate.h"
#include "train/run/step.h"

namespace routescope::train {
namespace {

using testing::forecast_config;
using testing::round_cluster;

const ComputeTimes kTimes{.layer_forward = 1, .layer_backward = 2, .head = 3, .clear = 0, .update = 0};

TEST(ForecastTest, CountsTheParametersOfEachPart) {
  const TrainConfig config = forecast_config();
  const ParameterCounts counts = count_parameters(config.model);
  EXPECT_EQ(counts.embedding, 4096 * 512);
  EXPECT_EQ(counts.head, 0);
  EXPECT_EQ(counts.layer, 512 * (3 * 256 + 256 + 3 * 512));
  const model::ParameterLayout layout(config.model);
  EXPECT_EQ(layout.matrices_end(), counts.embedding + 10 * counts.layer);
}

TEST(ForecastTest, OneRankSendsNothing) {
  const TrainConfig config = forecast_config();
  const StepForecast f = forecast_step(config, kTimes, round_cluster(), 1);
  EXPECT_EQ(f.bytes(), 0);
  EXPECT_EQ(f.exposed(), 0);
  EXPECT_DOUBLE_EQ(f.step(), 16 * (10 * 3 + 3));
}

TEST(ForecastTest, TheSlowestRankCounts) {
  const TrainConfig config = forecast_config();
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 4).passes, 4);
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 5).passes, 4);  // 16 = 4 + 3 + 3 + 3 + 3
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 6).passes, 3);
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 16).passes, 1);
  for (const int ranks : {3, 5, 6, 7}) {
    std::int64_t most = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const SequenceRange range = sequences_of_rank(16, 1, {.rank = rank, .size = ranks});
      most = std::max(most, range.end - range.begin);
    }
    EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), ranks).passes, most) << ranks;
  }
}

TEST(ForecastTest, BytesFollowFromTheShares) {
  TrainConfig config = forecast_config();
  const model::ParameterLayout layout(config.model, 4);
  const auto matrices = static_cast<double>(layout.matrices_end());
  const auto vectors = static_cast<double>(layout.total() - layout.matrices_end());
  const StepForecast f = forecast_step(config, kTimes, round_cluster(), 4);
  EXPECT_DOUBLE_EQ(f.reduce_scatter_bytes, 0.75 * 4 * matrices);
  EXPECT_DOUBLE_EQ(f.all_gather_bytes, 0.75 * 2 * matrices);
  EXPECT_DOUBLE_EQ(f.vector_bytes, 2 * 0.75 * 4 * vectors);
  config.precision = "f32";
  EXPECT_DOUBLE_EQ(forecast_step(config, kTimes, round_cluster(), 4).all_gather_bytes, 0.75 * 4 * matrices);
  config.precision = "bf16";
  config.distributed.zero = 0;  // gradients are gathered, not parameters
  EXPECT_DOUBLE_EQ(forecast_step(config, kTimes, round_cluster(), 4).all_gather_bytes, 0.75 * 4 * matrices);
}

/// Bytes a second at which one bucket's collective among two ranks of a node takes `seconds`.
Cluster with_bucket_seconds(double seconds, const TrainConfig& config) {
  Cluster c = round_cluster();
  const auto bucket_bytes = static_cast<double>(config.distributed.bucket_mb << 20);
  c.intra_node = {0, bytes_sent(2, bucket_bytes) / seconds};
  return c;
}

TEST(ForecastTest, TheBackwardPassHidesReduceScatters) {
  // Buckets of 4 MiB are 1 Mi elements: 2 of the embedding, then 10 layers of 1.25 Mi: 14.5 buckets.
  const TrainConfig config = forecast_config();
  // Far faster than the passes: exposed are the embedding's two buckets and the two that the first layer is in, which
  // are complete last.
  const Cluster fast = with_bucket_seconds(0.001, config);
  const StepForecast f = forecast_step(config, kTimes, fast, 2);
  EXPECT_NEAR(f.reduce_scatter, 0.0145, 1e-9);
  EXPECT_NEAR(f.reduce_scatter_exposed, 0.004, 1e-9);
  // Far slower: the first bucket to go (the last half one) is ready after the head and one layer, and from then on the
  // link is never idle.
  const Cluster slow = with_bucket_seconds(100, config);
  const StepForecast g = forecast_step(config, kTimes, slow, 2);
  EXPECT_NEAR(g.reduce_scatter, 1450, 1e-6);
  EXPECT_NEAR(g.reduce_scatter_exposed, (3 + 2) + 1450 - (3 + 20), 1e-6);
}

TEST(ForecastTest, TheForwardPassWaitsForItsParameters) {
  const TrainConfig config = forecast_config();
  // An all-gather moves half the bytes (bf16). Fast: the pass waits for the first four buckets, without which the first
  // layer cannot start, and for none afterwards.
  const StepForecast f = forecast_step(config, kTimes, with_bucket_seconds(0.001, config), 2);
  EXPECT_NEAR(f.all_gather, 0.0145 / 2, 1e-9);
  EXPECT_NEAR(f.all_gather_exposed, 0.002, 1e-9);
  // Slow: the last layer starts when everything is there.
  const StepForecast g = forecast_step(config, kTimes, with_bucket_seconds(100, config), 2);
  EXPECT_NEAR(g.all_gather_exposed, 725 + 1 - 10, 1e-6);
  // Updating hides it as well. With an update as long as the gathers, 50 s a bucket, bucket 13 is there at 750 s, when
  // the pass, which started after the update at 725 s, has waited 17 s for it before layer 8; the last one at 775 s.
  ComputeTimes times = kTimes;
  times.update = 100.0 / (1 << 20);
  const StepForecast h = forecast_step(config, times, with_bucket_seconds(100, config), 2);
  EXPECT_NEAR(h.all_gather_exposed, 775 + 1 - (725 + 10), 1e-6);
}

TEST(ForecastTest, OnOneMachineOfCpusNothingIsHidden) {
  const TrainConfig config = forecast_config();
  Cluster c = with_bucket_seconds(0.001, config);
  c.device = "cpu";
  const StepForecast f = forecast_step(config, kTimes, c, 2);
  EXPECT_DOUBLE_EQ(f.reduce_scatter_exposed, f.reduce_scatter);
  EXPECT_DOUBLE_EQ(f.all_gather_exposed, f.all_gather);
  TrainConfig zero0 = config;
  zero0.distributed.zero = 0;
  const StepForecast g = forecast_step(zero0, kTimes, with_bucket_seconds(0.001, config), 2);
  EXPECT_DOUBLE_EQ(g.all_gather_exposed, g.all_gather);
  EXPECT_DOUBLE_EQ(g.all_gather, g.reduce_scatter);
}

TEST(ForecastTest, DescribedTimesAreFlopsOverTheRate) {
  const TrainConfig config = forecast_config();
  Cluster c = round_cluster();
  const ComputeTimes times = described_times(config, c);
  const double per_token = times.micro_batch(10) / 128 * 0.5e12;
  // As throughput.h counts them.
  const double d = 512, layer = d * (3 * 256 + 256 + 3 * 512);
  EXPECT_NEAR(per_token, 6 * (10 * layer + 4096 * d) + 6 * 10 * 256 * 129, 1e-3);
  EXPECT_DOUBLE_EQ(times.clear, 4e-12);
  EXPECT_DOUBLE_EQ(times.update, (8 * 4 + 2) * 1e-12);
}

TEST(ForecastTest, MoreRanksTakeLessTimeAndLoseEfficiencyUpTo4096) {
  TrainConfig config = forecast_config();
  config.train.tokens_per_step = 4096 * 128;
  const Cluster c = round_cluster();
  const ComputeTimes times = described_times(config, c);
  double before = 0, efficiency = 1;
  const double alone = forecast_step(config, times, c, 1).step();
  for (std::int64_t ranks = 1; ranks <= 4096; ranks *= 2) {
    const StepForecast f = forecast_step(config, times, c, ranks);
    EXPECT_EQ(f.passes, 4096 / ranks);
    const double now = alone / (static_cast<double>(ranks) * f.step());
    EXPECT_LE(now, efficiency + 1e-9) << ranks;
    EXPECT_TRUE(std::isfinite(f.step()));
    efficiency = now;
    if (ranks <= 64 && ranks > 1) {
      EXPECT_LT(f.step(), before) << ranks;
    }
    before = f.step();
  }
}

TEST(ForecastTest, UnknownLinksCountBytesAndTakeNoTime) {
  TrainConfig config = forecast_config();
  for (const int zero : {0, 1}) {
    config.distributed.zero = zero;
    const StepForecast known = forecast_step(config, kTimes, round_cluster(), 4);
    const StepForecast f = forecast_step(config, kTimes, unknown_cluster(4), 4);
    EXPECT_EQ(f.bytes(), known.bytes());
    EXPECT_EQ(f.passes, 4);
    EXPECT_EQ(f.exposed(), 0);
    EXPECT_EQ(f.step(), known.step() - known.exposed());
  }
}

TEST(CalibrationTest, TheHeadsTimeIsProportionalToVocabularyAndTokens) {
  TrainConfig config = forecast_config();
  // A machine whose head takes exactly this long for each id and token.
  constexpr double kSeconds = 3e-9;
  for (const std::int64_t vocabulary : {2, 257, 151936, 1 << 21}) {
    for (const std::int64_t length : {1, 32, 64, 4096}) {
      for (const std::int64_t micro_batch : {1, 3, 16}) {
        config.model.vocab_size = vocabulary;
        config.data.sequence_length = length;
        config.train.micro_batch = micro_batch;
        const HeadTrial trial = head_trial(config);
        ASSERT_LT(trial.few, trial.many);
        ASSERT_LE(trial.many, vocabulary);
        ASSERT_LE(trial.length, length);
        ASSERT_GT(trial.few * trial.sequences * trial.length, 0);
        const double ids = static_cast<double>(trial.many - trial.few);
        const double difference = kSeconds * ids * static_cast<double>(trial.sequences * trial.length);
        const double expected = kSeconds * static_cast<double>(vocabulary * length * micro_batch);
        EXPECT_NEAR(head_seconds(config, trial, difference), expected, 1e-12 * expected)
            << vocabulary << " ids, " << length << " tokens, micro-batch " << micro_batch;
      }
    }
  }
}

TEST(CalibrationTest, MeasuresEveryPart) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  config.precision = "f32";
  config.data.sequence_length = 32;
  const ComputeTimes times = calibrate(config, 0).times;
  for (const double seconds : {times.layer_forward, times.layer_backward, times.head}) {
    EXPECT_GT(seconds, 0);
    EXPECT_TRUE(std::isfinite(seconds));
  }
}

}  // namespace
}  // namespace routescope::train
