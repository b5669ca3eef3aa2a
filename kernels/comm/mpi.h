// Collectives over MPI, between CPU ranks; and the lane for the collectives of another library.
#pragma once

#include <memory>
#include <string>

#include "kernels/comm/lane.h"
#include "kernels/comm/launch.h"

namespace routescope::kernels {

struct MpiRanks {
  std::unique_ptr<Communicator> communicator;
  Lane* lane = nullptr;  // as long as the communicator lives, and while the process ends by an error
};

/// start_communicator() for the CPU; `launched` as the launcher says it.
MpiRanks start_mpi(const Place& launched, const CommunicatorOptions& options);

/// abandon(), if MPI has started and not ended; else returns.
void abandon_mpi(int status, const std::string& whole_line);

}  // namespace routescope::kernels
