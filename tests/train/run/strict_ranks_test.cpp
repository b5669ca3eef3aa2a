// The checks of StrictRanks find what they are for.
#include "tests/train/run/strict_ranks.h"

#include <gtest/gtest.h>

#include <cmath>

namespace routescope::testing {
namespace {

using kernels::Tensor;

/// Two ranks sum `whole`, which is 1 everywhere, and do `meanwhile` before they wait. Returns a rank's piece.
std::vector<float> sums(const std::function<void(kernels::Communicator&, Tensor whole, Tensor piece)>& meanwhile) {
  std::vector<float> out;
  StrictRanks::run(2, [&](kernels::Communicator& communicator) {
    std::vector<float> values(4, 1.0F);
    const Tensor whole(values.data(), kernels::DType::f32, kernels::Device::cpu, {4});
    const Tensor piece = whole.rows(2 * communicator.rank(), 2 * communicator.rank() + 2);
    const auto ticket = communicator.reduce_scatter(piece, whole, {}, "a test");
    meanwhile(communicator, whole, piece);
    communicator.wait(ticket, {});
    out.assign(piece.as<float>(), piece.as<float>() + 2);
  });
  return out;
}

TEST(StrictRanks, ATensorIsNanUntilItsCollectiveIsWaitedFor) {
  EXPECT_EQ(sums([](auto&, const Tensor& whole, const Tensor&) {
              for (int i = 0; i < 4; ++i) EXPECT_TRUE(std::isnan(whole.as<float>()[i])) << i;
            }),
            std::vector<float>(2, 2.0F));
}

TEST(StrictRanks, AWriteToATensorOfACollectiveIsRefused) {
  EXPECT_THROW(sums([](auto&, const Tensor& whole, const Tensor&) { whole.as<float>()[3] = 1; }), std::logic_error);
}

TEST(StrictRanks, ACollectiveWithATensorOfAnotherOneIsRefused) {
  const auto gather = [](kernels::Communicator& communicator, const Tensor& whole, const Tensor& piece) {
    communicator.all_gather(whole, piece, {}, "another test");
  };
  EXPECT_THROW(sums(gather), std::logic_error);
}

}  // namespace
}  // namespace routescope::testing
