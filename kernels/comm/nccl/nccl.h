// Collectives over NCCL, between CUDA devices.
#pragma once

#include <memory>

#include "kernels/comm/lane.h"
#include "kernels/comm/launch.h"

namespace routescope::kernels {

/// Selects the CUDA device of this rank and joins the ranks' devices; collective. It replaces `host`, and host
/// values go through `host`; `lane` answers for this rank (null for a process alone). Throws std::runtime_error.
std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host, Lane* lane,
                                                const CommunicatorOptions& options);

}  // namespace routescope::kernels
