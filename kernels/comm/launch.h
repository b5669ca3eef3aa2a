// How a process of a job learns its place and meets the others.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/comm/communicator.h"

namespace routescope::kernels {

struct CommunicatorOptions {
  double timeout_seconds = 600;  // without progress in a collective, after which the job is ended
  double start_seconds = 300;    // until all processes have come, which load programs first
  std::string advice;            // ends the line about a lost rank: what the reader does next
  /// Host memory that sums over CPU ranks take, at most (communicator_staging_bytes), and the largest message that MPI
  /// is given.
  std::size_t staging_bytes = std::size_t{16} << 20;
  std::size_t message_bytes = std::size_t{256} << 20;
};

/// This process's place as the launcher's environment says it, before anything is started: that of mpirun (Open MPI,
/// or an MPICH with PMI), or of srun, within one of its steps only. Alone: {0, 1, 0}. Throws std::runtime_error for
/// values that are no place.
Place launched_place();

/// Whether this build has MPI (and NCCL for CUDA devices), without which processes are alone.
bool mpi_built();
bool nccl_built();

/// Joins the processes that a launcher started, one per device; collective. A process alone gets
/// single_communicator() and never touches MPI. On CUDA it selects the device of this rank, so call it before anything
/// else uses one. Throws std::runtime_error, with what to do, where the launcher and this build's MPI do not
/// understand each other (on rank 0; the other processes then end silently with status 1), where a build lacks what is
/// needed, and where a machine has fewer devices than processes. Processes that do not all come within start_seconds
/// end with lost_rank_status. Once in the life of a process.
std::unique_ptr<Communicator> start_communicator(Device device, const CommunicatorOptions& options = {});

/// Host memory that a communicator of `ranks` CPU ranks keeps for sums over its largest bucket.
std::size_t communicator_staging_bytes(int ranks, std::size_t largest_bucket_bytes,
                                       const CommunicatorOptions& options = {});

/// Ends this process and with it the job, for an error that the other ranks do not know of. Prints `line` on standard
/// error, unless another rank ended the job first (an error that all ranks meet is then told once, by the lowest). The
/// other ranks are told and end silently with the same status, wherever they are; no MPI_Abort, whose text under
/// mpirun and signals under srun would drown the line. A process alone prints and ends. Call it from the thread that
/// uses the communicator, which must not have been destroyed otherwise than by an exception.
[[noreturn]] void abandon(int status, const std::string& line);

}  // namespace routescope::kernels
