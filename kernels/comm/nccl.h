// Collectives over NCCL, between CUDA devices.
#pragma once

#include <memory>

#include "kernels/comm/lane.h"
#include "kernels/comm/launch.h"

namespace routescope::kernels {

/// Selects the CUDA device of this rank and joins the ranks' devices; collective. Host values go through `host`, whose
/// place it takes; `lane` answers for this rank (null where it is alone). Throws std::runtime_error.
std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host, Lane* lane,
                                                const CommunicatorOptions& options);

}  // namespace routescope::kernels
