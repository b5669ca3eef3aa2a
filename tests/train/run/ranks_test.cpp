// Many ranks compute what one rank computes: sums over ranks, shares of the optimizer's state, gathered parameters.
// Ranks are threads here (strict_ranks.h); in tests/train/mpi they are processes.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/train/run/micro_run.h"
#include "tests/train/run/strict_ranks.h"
#include "tests/train/run/trainer.h"

namespace routescope::testing {
namespace {

/// A model of a little over a million parameters: five buckets of 1 MiB.
std::vector<std::string> five_buckets(std::vector<std::string> more = {}) {
  more.insert(more.end(), {"model.vocab_size=2048", "model.hidden_size=128", "model.intermediate_size=384",
                           "model.head_dim=32", "train.optimizer.learning_rate=1e-3"});
  return more;
}

class Ranks : public ::testing::Test {
 protected:
  train::TrainConfig config(std::int64_t zero, std::int64_t bucket_mb, const std::string& precision,
                            std::vector<std::string> more = {}) const {
    more.push_back("distributed.zero=" + std::to_string(zero));
    more.push_back("distributed.bucket_mb=" + std::to_string(bucket_mb));
    more.push_back("precision=" + precision);
    return micro_.config("unused", five_buckets(std::move(more)));
  }
  MicroRun micro_;
};

// 4 micro-batches: 3 ranks compute 1, 1 and 2 of them, and of 5 ranks one computes none.
TEST_F(Ranks, ZeroAndBucketsChangeNoBit) {
  const std::pair<const char*, int> cases[] = {{"f32", 1},  {"f32", 2},  {"f32", 3}, {"f32", 4},
                                               {"bf16", 1}, {"bf16", 3}, {"bf16", 5}};
  for (const auto& [precision, ranks] : cases) {
    const std::vector<std::string> passes{"train.micro_batch=1"};
    const Trained expected = train(config(0, 1, precision, passes), ranks, 2);
    EXPECT_NE(expected.losses.back(), expected.losses.front());
    const std::string at = std::to_string(ranks) + " ranks, " + precision;
    expect_same_bits(train(config(1, 1, precision, passes), ranks, 2), expected, at);
    expect_same_bits(train(config(1, 3, precision, passes), ranks, 2), expected, at + ", larger buckets");
  }
}

TEST_F(Ranks, ManyRanksFollowOneForFiftySteps) {
  const train::TrainConfig f32 = config(1, 1, "f32", {"train.micro_batch=1"});
  const Trained one = train(f32, 1, 50);
  EXPECT_LT(one.losses.back(), one.losses.front() - 1.0);
  for (const int ranks : {2, 3, 4}) {
    const Trained many = train(f32, ranks, 50);
    for (std::size_t i = 0; i < one.losses.size(); ++i) {
      EXPECT_NEAR(many.losses[i], one.losses[i], 2e-4) << ranks << " ranks, step " << i + 1;
      EXPECT_NEAR(many.norms[i], one.norms[i], 2e-3 * one.norms[i]) << ranks << " ranks, step " << i + 1;
    }
    // Tokens and weights are the same. The first loss differs only by the order of its sum; the norm by its rounding to
    // f32 and by the order in which gradients are summed.
    EXPECT_NEAR(many.losses[0], one.losses[0], 1e-12 * one.losses[0]);
    EXPECT_NEAR(many.norms[0], one.norms[0], 64 * std::numeric_limits<float>::epsilon() * one.norms[0]);
  }
}

// The state of every rank is copied into another run through Optimizer::state(), as a checkpoint does.
TEST_F(Ranks, CopiedStateContinuesToTheSameBits) {
  for (const char* precision : {"f32", "bf16"}) {
    const train::TrainConfig three_ranks = config(1, 1, precision);
    const Trained expected = train(three_ranks, 3, 4);
    Trained found;
    StrictRanks::run(3, [&](kernels::Communicator& communicator) {
      Trainer first(three_ranks, communicator), second(three_ranks, communicator);
      std::vector<double> losses, norms;
      for (int step = 1; step <= 4; ++step) {
        if (step == 3) {
          first.optimizer.parameters().finish(first.pass.stream());
          const auto &from = first.optimizer.state().ranges, &to = second.optimizer.state().ranges;
          ASSERT_EQ(from.size(), to.size());
          for (std::size_t i = 0; i < from.size(); ++i) {
            for (std::size_t slot = 0; slot < from[i].state.size(); ++slot)
              kernels::copy(to[i].state[slot], from[i].state[slot], {});
            kernels::copy(to[i].parameters, from[i].parameters, {});
          }
          second.optimizer.parameters().publish(second.pass.stream());
        }
        const train::StepResult result = (step < 3 ? first : second).step(step);
        losses.push_back(result.loss);
        norms.push_back(result.grad_norm);
      }
      std::vector<float> weights = second.weights();
      if (communicator.rank() == 0) found = {losses, norms, std::move(weights)};
    });
    expect_same_bits(found, expected, precision);
  }
}

TEST_F(Ranks, EveryElementIsWrittenByOneRank) {
  for (const std::int64_t zero : {0, 1}) {
    for (const char* precision : {"f32", "bf16"}) {
      for (const int ranks : {1, 3}) {
        const train::TrainConfig shared = config(zero, 1, precision);
        std::vector<int> writers, holders;
        std::int64_t matrices_end = 0, vector_writer = -1;
        StrictRanks::run(ranks, [&](kernels::Communicator& communicator) {
          Trainer trainer(shared, communicator);
          const model::ParameterLayout& layout = trainer.model.layout();
          matrices_end = layout.matrices_end();
          writers.resize(static_cast<std::size_t>(layout.total()));
          holders.resize(writers.size());
          std::int64_t last = 0;
          for (const train::StateRange& range : trainer.optimizer.state().ranges) {
            EXPECT_GE(range.begin, last);
            last = range.end;
            EXPECT_EQ(range.parameters.numel(), range.end - range.begin);
            EXPECT_EQ(range.state.size(), 2U);
            for (const kernels::Tensor& tensor : range.state) EXPECT_EQ(tensor.numel(), range.end - range.begin);
            for (std::int64_t i = range.begin; i < range.end; ++i) {
              ++holders[static_cast<std::size_t>(i)];
              if (range.written) ++writers[static_cast<std::size_t>(i)];
            }
            if (range.written && range.end == layout.total()) vector_writer = communicator.rank();
          }
          EXPECT_EQ(trainer.model.has_matrices(), zero == 0 || precision == std::string("f32") || ranks == 1);
        });
        EXPECT_EQ(vector_writer, 0);
        for (std::size_t i = 0; i < writers.size(); ++i) {
          ASSERT_EQ(writers[i], 1) << i << ", zero " << zero << ", " << ranks << " ranks";
          const bool matrix = static_cast<std::int64_t>(i) < matrices_end;
          ASSERT_EQ(holders[i], matrix && zero == 1 ? 1 : ranks) << i << ", zero " << zero << ", " << ranks << " ranks";
        }
      }
    }
  }
}

TEST_F(Ranks, TrainingArraysHaveTheAllocatedSizes) {
  const train::TrainConfig sharded = config(1, 1, "bf16");
  StrictRanks::run(4, [&](kernels::Communicator& communicator) {
    Trainer trainer(sharded, communicator);
    std::size_t parameters = 0, state = 0;
    for (const train::StateRange& range : trainer.optimizer.state().ranges) {
      parameters += range.parameters.bytes();
      for (const kernels::Tensor& tensor : range.state) state += tensor.bytes();
    }
    const std::vector<kernels::Arena::Part> parts =
        train::training_arrays(sharded.model, sharded.model_options(), sharded.train.optimizer, sharded.distributed, 4);
    ASSERT_EQ(parts.size(), 4U);
    EXPECT_EQ(parts[0].bytes, parameters);
    EXPECT_EQ(parts[1].bytes, trainer.model.operand_matrices().bytes());
    EXPECT_EQ(parts[2].bytes, trainer.gradients.tensor.bytes());
    EXPECT_EQ(parts[3].bytes, state);
  });
}

/// The bytes of everything that an update changes on this rank.
std::vector<std::byte> state_of(Trainer& trainer) {
  trainer.optimizer.parameters().finish(trainer.pass.stream());
  std::vector<std::byte> out;
  const auto add = [&out](const kernels::Tensor& tensor) {
    const auto* data = static_cast<const std::byte*>(tensor.data);
    out.insert(out.end(), data, data + tensor.bytes());
  };
  for (const train::StateRange& range : trainer.optimizer.state().ranges) {
    for (const kernels::Tensor& tensor : range.state) add(tensor);
    add(range.parameters);
  }
  add(trainer.model.operand_matrices());
  return out;
}

TEST_F(Ranks, AnInterruptionOrNanOnOneRankChangesNothingOnAnyRank) {
  const train::TrainConfig three_ranks = config(1, 1, "f32", {"train.micro_batch=1"});
  StrictRanks::run(3, [&](kernels::Communicator& communicator) {
    Trainer trainer(three_ranks, communicator);
    const bool last = communicator.rank() == 2;
    EXPECT_EQ(trainer.step(1).outcome, train::StepOutcome::updated);
    const std::vector<std::byte> before = state_of(trainer);

    // The last rank has two micro-batches and is interrupted after the first.
    train::StepResult result = trainer.step(2, {.interrupted = [&] { return last; }});
    EXPECT_EQ(result.outcome, train::StepOutcome::interrupted);
    EXPECT_EQ(state_of(trainer), before);

    const kernels::Tensor gain = trainer.model.parameter("model.norm.weight");
    const float kept = gain.as<float>()[0];
    if (last) gain.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    result = trainer.step(2);
    EXPECT_EQ(result.outcome, train::StepOutcome::not_finite);
    gain.as<float>()[0] = kept;
    EXPECT_EQ(state_of(trainer), before);

    EXPECT_EQ(trainer.step(2).outcome, train::StepOutcome::updated);
    EXPECT_NE(state_of(trainer), before);
  });
}

TEST_F(Ranks, DataThatOneRankCannotReadChangeNothingOnAnyRank) {
  const std::filesystem::path copy = micro_.directory() / "copy.bin";
  std::filesystem::copy(micro_.directory() / "train.bin", copy);
  StrictRanks::run(3, [&](kernels::Communicator& communicator) {
    const bool last = communicator.rank() == 2;
    std::vector<std::string> data;
    if (last) data.push_back("data.train=['" + copy.string() + "']");
    data.push_back("train.micro_batch=1");
    const train::TrainConfig mine = config(1, 1, "f32", data);
    Trainer trainer(mine, communicator);
    EXPECT_EQ(trainer.step(1).outcome, train::StepOutcome::updated);
    const std::vector<std::byte> before = state_of(trainer);
    if (last) std::filesystem::resize_file(copy, std::filesystem::file_size(copy) / 2);
    const train::StepResult result = trainer.step(2);
    EXPECT_EQ(result.outcome, train::StepOutcome::interrupted);
    EXPECT_EQ(result.input_error.empty(), !last) << result.input_error;
    EXPECT_EQ(state_of(trainer), before);
  });
}

TEST(SequencesOfRank, DifferByOneMicroBatchAtMost) {
  for (const int ranks : {1, 2, 3, 5, 7}) {
    std::int64_t next = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const train::SequenceRange mine = train::sequences_of_rank(12, 2, {.rank = rank, .size = ranks});
      EXPECT_EQ(mine.begin, next);
      EXPECT_EQ((mine.end - mine.begin) % 2, 0);
      EXPECT_GE((mine.end - mine.begin) / 2, 6 / ranks);
      EXPECT_LE((mine.end - mine.begin) / 2, (6 + ranks - 1) / ranks);
      next = mine.end;
    }
    EXPECT_EQ(next, 12);
  }
}

TEST(BucketsTest, PiecesAreEqualAlignedAndCoverEverything) {
  constexpr std::int64_t kMebibyte = (1 << 20) / 4;
  for (const int ranks : {1, 2, 3, 7}) {
    const std::int64_t unit = 16 * ranks, elements = (2 * kMebibyte + 1000) / unit * unit;
    std::vector<int> owners(static_cast<std::size_t>(elements));
    for (int rank = 0; rank < ranks; ++rank) {
      const train::Buckets buckets(elements, 1, {.rank = rank, .size = ranks});
      EXPECT_EQ(buckets.size(), ranks == 1 ? 1U : 3U);
      EXPECT_EQ(buckets.owned(), elements / ranks);
      for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
        EXPECT_TRUE(ranks == 1 || buckets[bucket].size() <= kMebibyte);
        const train::Stretch piece = buckets.piece(bucket);
        EXPECT_EQ(piece.begin % 16, 0);
        EXPECT_EQ(piece.size() * ranks, buckets[bucket].size());
        for (std::int64_t i = piece.begin; i < piece.end; ++i) ++owners[static_cast<std::size_t>(i)];
      }
    }
    EXPECT_EQ(std::ranges::count(owners, 1), elements);
  }
  EXPECT_THROW(train::Buckets(40, 1, {.rank = 0, .size = 2}), std::invalid_argument);
}

}  // namespace
}  // namespace routescope::testing
