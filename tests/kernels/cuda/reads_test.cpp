// Limits of reads on CUDA that the interface does not have, and their errors.
#include <gtest/gtest.h>

#include <string>

#include "tests/kernels/op_cases_attn_res.h"

namespace routescope::testing {
namespace {

/// The message of std::invalid_argument that a forward read over n sources of d columns ends with, or "".
std::string refusal(std::int64_t d, std::int64_t n, std::int64_t sources_that_are_the_partial = 0) {
  OpCase read = read_case("refused", 1, d, n, {});
  read.call([=](const Tensors& r, const kernels::Stream& s) {
    const ReadArguments arguments(r, n, false);
    std::vector<kernels::Tensor> values(arguments.sources().values.begin(), arguments.sources().values.end());
    for (std::int64_t i = 0; i < sources_that_are_the_partial; ++i) values[static_cast<std::size_t>(i)] = r["p"];
    kernels::attn_res_forward(r["x"], arguments.state, r["p_in"], r["y"], {values, arguments.sources().inv_rms},
                              arguments.params, kernels::Tensor(), s);
  });
  try {
    read.run(kCudaBf16, kCudaBf16);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(CudaReads, TakeUpTo128Sources) {
  EXPECT_EQ(refusal(64, 128), "");
  EXPECT_EQ(refusal(64, 129), "attn_res_forward: 129 sources, expected at most 128 on CUDA");
}

TEST(CudaReads, TakeOneSourceThatIsThePartial) {
  EXPECT_EQ(refusal(64, 3, 1), "");
  EXPECT_EQ(refusal(64, 3, 2), "attn_res_forward: expected at most one source that is the partial");
}

TEST(CudaReads, NameTheWidestRow) {
  EXPECT_EQ(refusal(5120, 1), "");
  EXPECT_EQ(refusal(5128, 1), "attn_res_forward: a hidden size of 5128, expected at most 5120");
}

}  // namespace
}  // namespace routescope::testing
