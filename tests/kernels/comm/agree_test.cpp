// What fails on one rank fails on every rank, with the error of the first rank that found one.
#include "kernels/comm/agree.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/train/run/strict_ranks.h"

namespace routescope::testing {
namespace {

/// What each of `ranks` ranks ends with if the body throws on those of `failing`; "" without an exception.
std::vector<std::string> ends(int ranks, const std::set<int>& failing) {
  std::vector<std::string> out(static_cast<std::size_t>(ranks));
  std::mutex mutex;
  StrictRanks::run(ranks, [&](kernels::Communicator& communicator) {
    std::string end;
    try {
      kernels::agree(communicator, "a test", [&] {
        if (failing.contains(communicator.rank()))
          throw std::runtime_error("error of " + std::to_string(communicator.rank()));
      });
    } catch (const kernels::AgreedError& error) {
      end = error.what();
    }
    const std::lock_guard lock(mutex);
    out[static_cast<std::size_t>(communicator.rank())] = end;
  });
  return out;
}

TEST(Agree, NothingIsThrownWhereNoRankFails) {
  EXPECT_EQ(ends(3, {}), std::vector<std::string>(3));
}

TEST(Agree, EveryRankThrowsTheErrorOfTheFirstThatFailed) {
  EXPECT_EQ(ends(3, {0}), std::vector<std::string>(3, "error of 0"));
  EXPECT_EQ(ends(3, {2}), std::vector<std::string>(3, "rank 2: error of 2"));
  EXPECT_EQ(ends(4, {1, 3}), std::vector<std::string>(4, "rank 1: error of 1"));
  EXPECT_EQ(ends(3, {0, 1, 2}), std::vector<std::string>(3, "error of 0"));
}

TEST(Agree, AloneTheErrorIsItsOwn) {
  EXPECT_THROW(ends(1, {0}), std::runtime_error);
}

}  // namespace
}  // namespace routescope::testing
