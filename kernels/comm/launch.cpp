#include "kernels/comm/launch.h"

#include <unistd.h>

#include <cerrno>  // program_invocation_short_name
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <thread>

#include "kernels/comm/nccl/nccl.h"
#include "kernels/comm/staging.h"
#ifdef ROUTESCOPE_MPI
#include "kernels/comm/mpi.h"
#endif

namespace routescope::kernels {

namespace {

std::optional<int> number_in(const char* name) {
  const char* text = std::getenv(name);
  if (!text) return std::nullopt;
  int value = 0;
  const auto [end, status] = std::from_chars(text, text + std::strlen(text), value);
  if (status != std::errc{} || *end != '\0' || value < 0) {
    throw std::runtime_error(std::string(name) + ": found '" + text + "', expected a number as a launcher sets it");
  }
  return value;
}

/// An error before the ranks have met is mostly the same on all of them. Rank 0 prints it first; a launcher that then
/// ends the job hides the lines of the others.
void let_rank_0_end_first() {
  std::this_thread::sleep_for(std::chrono::seconds(3));
}

/// The variables that a launcher sets for each of its processes.
struct Launcher {
  const char *size, *rank, *local_rank;
};
// The first that is set counts. An mpirun inside a Slurm job sets its own besides those of srun, which starts its
// daemons. SLURM_STEP_NUM_TASKS, unlike SLURM_NTASKS, exists within a step of srun only, and not in a batch script.
constexpr Launcher kLaunchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"},
};

#ifdef ROUTESCOPE_MPI
/// Open MPI ends a process in MPI_Init, with a page of text, where srun brought no process manager.
void check_process_manager(const Place& launched) {
  const bool by_srun = !std::getenv("OMPI_COMM_WORLD_SIZE") && !std::getenv("PMI_SIZE");
  if (by_srun && !std::getenv("PMIX_RANK") && !std::getenv("PMI_RANK") && !std::getenv("PMI_FD")) {
    throw std::runtime_error("srun started " + std::to_string(launched.size) +
                             " processes without a process manager by which they could meet: expected srun --mpi=pmix "
                             "(or pmi2, as this MPI was built; srun --mpi=list says what this Slurm has)");
  }
}
#endif

}  // namespace

Place launched_place() {
  for (const Launcher& launcher : kLaunchers) {
    const std::optional<int> size = number_in(launcher.size), rank = number_in(launcher.rank);
    if (!size || !rank) continue;
    if (*rank >= *size) {
      throw std::runtime_error(std::string(launcher.rank) + ": found " + std::to_string(*rank) +
                               ", expected less than " + launcher.size + ", which is " + std::to_string(*size));
    }
    return {.rank = *rank, .size = *size, .local_rank = number_in(launcher.local_rank).value_or(0)};
  }
  return {};
}

bool mpi_built() {
#ifdef ROUTESCOPE_MPI
  return true;
#else
  return false;
#endif
}

std::unique_ptr<Communicator> start_communicator(Device device, [[maybe_unused]] const CommunicatorOptions& options) {
  const Place launched = launched_place();
  if (launched.size == 1) return single_communicator();
  try {
#ifdef ROUTESCOPE_MPI
    if (device == Device::cuda && !nccl_built()) {
      throw std::runtime_error("found " + std::to_string(launched.size) +
                               " processes for CUDA devices, expected 1: this build has no NCCL");
    }
    check_process_manager(launched);
    MpiRanks ranks = start_mpi(launched, options);
    if (device == Device::cpu) return std::move(ranks.communicator);
    try {
      return nccl_communicator(std::move(ranks.communicator), ranks.lane, options);
    } catch (const std::exception& error) {
      abandon(1, std::string(program_invocation_short_name) + ": error: " + error.what());
    }
#else
    static_cast<void>(device);
    throw std::runtime_error("found " + std::to_string(launched.size) +
                             " processes started together, expected 1: this build has no MPI");
#endif
  } catch (const std::exception&) {
    // An error of a build or a launcher is the same for every process: rank 0 reports it.
    if (launched.rank != 0) {
      let_rank_0_end_first();
      ::_exit(1);
    }
    throw;
  }
}

void abandon(int status, const std::string& line) {
  const std::string whole_line = line.empty() || line.back() == '\n' ? line : line + "\n";
  std::fflush(nullptr);
#ifdef ROUTESCOPE_MPI
  abandon_mpi(status, whole_line);
#endif
  const char* rank = nullptr;
  for (const Launcher& launcher : kLaunchers) {
    if (!rank) rank = std::getenv(launcher.rank);
  }
  if (rank && std::strcmp(rank, "0") != 0) let_rank_0_end_first();
  std::fputs(whole_line.c_str(), stderr);
  std::exit(status);
}

std::size_t communicator_staging_bytes(int ranks, std::size_t largest_bucket_bytes,
                                       const CommunicatorOptions& options) {
  if (ranks < 2) return 0;
  const std::size_t part = largest_bucket_bytes / static_cast<std::size_t>(ranks);
  const std::size_t chunk = staging_chunk(ranks, part, 1, options);
  return (chunk < part ? staging_slots : 1) * static_cast<std::size_t>(ranks - 1) * chunk;
}

}  // namespace routescope::kernels
