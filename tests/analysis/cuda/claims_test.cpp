// Claim 1 on a CUDA device (emulated in test_simt, real in test_cuda).
#include "analysis/claims.h"

#include "tests/analysis/wrapped.h"

namespace routescope::testing {
namespace {

TEST(CudaClosedForm, HoldsForWrappedModels) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA device";
  expect_closed_form({.device = Device::cuda}, "f32");
  expect_closed_form({.device = Device::cuda, .operands = DType::bf16}, "bf16");
}

}  // namespace
}  // namespace routescope::testing
