// Batches are a pure function of seed and step: each epoch visits every window once, for any division of the steps.
#include "data/tokens/batches.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "data/tokens/shard_writer.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

class BatchesTest : public ::testing::Test {
 protected:
  // A stream whose token i is i: a window is known by its first token.
  TokenStream stream(std::int64_t size) {
    const auto file = dir_ / std::to_string(size);
    if (!std::filesystem::exists(file)) {
      ShardWriter writer(file, 1 << 20);
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(size));
      std::iota(tokens.begin(), tokens.end(), 0);
      writer.append(tokens);
      writer.finish();
    }
    return TokenStream({file.string()}, 0);
  }
  TempDir dir_;
};

TEST_F(BatchesTest, TargetsAreTheNextTokens) {
  const TokenStream tokens = stream(1000);
  const Batches batches(tokens, 16, 4, 1);
  for (std::int64_t step = 0; step < 40; ++step) {
    const Batch batch = batches.get(step, 0, 4);
    ASSERT_EQ(batch.inputs.size(), 64u);
    ASSERT_EQ(batch.targets.size(), 64u);
    for (std::size_t i = 0; i < 64; ++i) {
      ASSERT_EQ(batch.targets[i], batch.inputs[i] + 1);
      if (i % 16 != 0) {
        ASSERT_EQ(batch.inputs[i], batch.inputs[i - 1] + 1) << "a window is a run of the stream";
      }
    }
  }
}

// For every size up to 70 windows and some larger ones: the permutation's domain is a power of 4, so edges lie there.
TEST_F(BatchesTest, EachEpochVisitsEveryWindowOnce) {
  constexpr std::int64_t seq_len = 3;
  std::vector<std::int64_t> counts(70);
  std::iota(counts.begin(), counts.end(), 1);
  for (const std::int64_t more : {255, 256, 257, 1023, 1024, 1025, 4099}) counts.push_back(more);
  for (const std::int64_t windows : counts)
    for (const std::int64_t spare : {1, 3}) {  // tokens after the last whole window
      const TokenStream tokens = stream(windows * seq_len + spare);
      const Batches batches(tokens, seq_len, 1, 42);
      ASSERT_EQ(batches.windows(), windows);
      for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
        std::set<std::int32_t> seen;
        for (std::int64_t i = 0; i < windows; ++i) {
          const std::int32_t first = batches.get(epoch * windows + i, 0, 1).inputs[0];
          ASSERT_EQ(first % seq_len, 0);
          seen.insert(first);
        }
        ASSERT_EQ(seen.size(), static_cast<std::size_t>(windows)) << "epoch " << epoch;
      }
    }
}

TEST_F(BatchesTest, AreTheSameForAnyDivisionOfAStep) {
  const TokenStream tokens = stream(5000);
  const Batches batches(tokens, 8, 12, 7);
  for (const std::int64_t step : {0, 1, 50, 51, 52, 1000}) {  // 624 windows: step 52 begins the second epoch
    const Batch whole = batches.get(step, 0, 12);
    for (const std::int64_t size : {1, 2, 3, 5}) {
      Batch joined;
      for (std::int64_t begin = 0; begin < 12; begin += size) {
        const Batch part = batches.get(step, begin, std::min<std::int64_t>(12, begin + size));
        joined.inputs.insert(joined.inputs.end(), part.inputs.begin(), part.inputs.end());
        joined.targets.insert(joined.targets.end(), part.targets.begin(), part.targets.end());
      }
      ASSERT_EQ(joined.inputs, whole.inputs);
      ASSERT_EQ(joined.targets, whole.targets);
    }
  }
  // Nor on how many sequences a step has: the sequence number alone decides.
  const Batches others(tokens, 8, 4, 7);
  EXPECT_EQ(others.get(3 * 5, 0, 4).inputs, batches.get(5, 0, 4).inputs);
}

TEST_F(BatchesTest, SeedsAndEpochsGiveUnrelatedOrders) {
  constexpr std::int64_t windows = 2000;
  const TokenStream tokens = stream(windows + 1);
  const auto order = [&](std::uint64_t seed, std::int64_t epoch) {
    const Batches batches(tokens, 1, windows, seed);
    return batches.get(epoch, 0, windows).inputs;
  };
  const auto a = order(1, 0);
  EXPECT_EQ(a, order(1, 0));
  // Unrelated permutations agree at a Poisson(1) number of places (above 10: 1e-8), and their rank correlation is about
  // N(0, 1/n): 5 standard deviations.
  const auto identity = [&] {
    std::vector<std::int32_t> out(windows);
    std::iota(out.begin(), out.end(), 0);
    return out;
  }();
  for (const auto& b : {order(2, 0), order(1, 1), identity}) {
    int agree = 0;
    double covariance = 0;
    const double mean = (windows - 1) / 2.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      agree += a[i] == b[i] ? 1 : 0;
      covariance += (a[i] - mean) * (b[i] - mean);
    }
    const double variance = (static_cast<double>(windows) * windows - 1) / 12 * windows;
    EXPECT_LE(agree, 10);
    EXPECT_LT(std::abs(covariance / variance), 5 / std::sqrt(static_cast<double>(windows)));
  }
  // Neighbours in the order are no neighbours in the stream (expected number of such pairs: 2).
  int neighbours = 0;
  for (std::size_t i = 1; i < a.size(); ++i) neighbours += std::abs(a[i] - a[i - 1]) == 1 ? 1 : 0;
  EXPECT_LE(neighbours, 14);
}

TEST_F(BatchesTest, InOrderIsTheStream) {
  const TokenStream tokens = stream(100);
  const Batches batches(tokens, 10, 1, 3);
  const Batch batch = batches.in_order(2, 5);
  std::vector<std::int32_t> expected(30);
  std::iota(expected.begin(), expected.end(), 20);
  EXPECT_EQ(batch.inputs, expected);
  EXPECT_EQ(batches.windows(), 9);
  expect_error([&] { batches.in_order(5, 10); }, {"5 to 10", "9"});
}

TEST_F(BatchesTest, RefusesImpossibleRanges) {
  const TokenStream tokens = stream(100);
  EXPECT_EQ(Batches(tokens, 99, 1, 0).windows(), 1);
  expect_error([&] { Batches(tokens, 100, 1, 0); }, {"100 tokens", "at least 101"});
  expect_error([&] { Batches(tokens, 0, 1, 0); }, {"sequence length 0"});
  expect_error([&] { Batches(tokens, 10, 0, 0); }, {"0 sequences a step"});
  const Batches batches(tokens, 10, 4, 0);
  expect_error([&] { batches.get(0, 0, 5); }, {"0 to 5", "4"});
  expect_error([&] { batches.get(-1, 0, 1); }, {"step -1"});
  const TokenStream empty = stream(0);
  expect_error([&] { Batches(empty, 10, 1, 0); }, {"0 tokens"});
}

}  // namespace
}  // namespace routescope::data
