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

/// This process's place, from the environment of its launcher: mpirun (Open MPI, or an MPICH with PMI), or srun, within
/// a step of srun only. Alone: {0, 1, 0}. Starts nothing. Throws std::runtime_error for values that are no place.
Place launched_place();

/// Whether this build has MPI (and NCCL, for CUDA devices). Without it, a process is always alone.
bool mpi_built();
bool nccl_built();

/// Joins the processes that a launcher started, one per device; collective. A process alone gets
/// single_communicator() and never calls MPI. On CUDA it selects the device of this rank, so call it before anything
/// else uses one. Throws std::runtime_error, with what to do, where the launcher and this build's MPI do not fit (on
/// rank 0; the other processes then end silently with status 1), where the build lacks MPI or NCCL, and where a machine
/// has fewer devices than processes.
/// If not all processes come within start_seconds, they end with lost_rank_status.
/// A process may call it once.
std::unique_ptr<Communicator> start_communicator(Device device, const CommunicatorOptions& options = {});

/// Host memory that a communicator of `ranks` CPU ranks keeps for sums over its largest bucket.
std::size_t communicator_staging_bytes(int ranks, std::size_t largest_bucket_bytes,
                                       const CommunicatorOptions& options = {});

/// Ends this process and the whole job, for an error that the other ranks do not have. Prints `line` on standard error,
/// unless another rank ended the job first (so an error of all ranks is printed once, by the lowest). The other ranks
/// end silently with the same status, wherever they are. It does not call MPI_Abort, whose text under mpirun and
/// signals under srun would hide the line. A process alone prints and ends. Call it from the thread that uses the
/// communicator, while the communicator lives or after an exception destroyed it.
[[noreturn]] void abandon(int status, const std::string& line);

}  // namespace routescope::kernels
