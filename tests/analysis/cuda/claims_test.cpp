// Claim 1 on a CUDA device (emulated in test_simt, real in test_cuda).

#include "tests/analysis/probe/wrapped.h"

namespace routescope::testing {
namespace {

TEST(CudaClosedForm, HoldsForWrappedModels) {
  if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  expect_closed_form({.device = kernels::Device::cuda}, "f32");
  expect_closed_form({.device = kernels::Device::cuda, .operands = kernels::DType::bf16}, "bf16");
}

}  // namespace
}  // namespace routescope::testing
