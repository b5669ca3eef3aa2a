// The conformance cases on a CUDA device: NCCL where it is built (the emulation has none), with the one rank that a
// machine with one device has; and the communicator of a process alone. More ranks: mpirun -n N test_comm_ranks --cuda.
#include "kernels/comm/nccl/nccl.h"

#include <gtest/gtest.h>

#include "tests/kernels/comm/conformance.h"

namespace routescope::kernels {
namespace {

class CommunicatorOnDevice : public ::testing::TestWithParam<testing::ConformanceCase> {};

TEST_P(CommunicatorOnDevice, Alone) {
  const std::unique_ptr<Communicator> communicator = single_communicator();
  GetParam().run({*communicator, Device::cuda, true});
}

#ifdef ROUTESCOPE_NCCL
TEST_P(CommunicatorOnDevice, Nccl) {
  const std::unique_ptr<Communicator> communicator = nccl_communicator(single_communicator(), nullptr, {});
  GetParam().run({*communicator, Device::cuda, false});
}
#endif

INSTANTIATE_TEST_SUITE_P(Conformance, CommunicatorOnDevice, ::testing::ValuesIn(testing::conformance_cases()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace routescope::kernels
