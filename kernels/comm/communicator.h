// Ranks that compute together: one process per device, started by mpirun or srun. Over MPI between CPUs, over NCCL
// between CUDA devices (with MPI for host values and to bring NCCL up), or a process alone.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace routescope::kernels {

/// One process of a job.
struct Place {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // among the processes of this machine
};

enum class Reduction { sum, min, max };

/// Collectives. Every rank calls the same ones in the same order, with sizes and types that agree, from one thread.
/// `what` names a collective in messages ("gradients, bucket 3"). No call waits for ever: if a rank does not come to a
/// collective within the timeout, because it died, stopped or hangs, every process of the job ends with status
/// lost_rank_status, and one line on standard error names the rank and the collective. If ranks are in different
/// collectives, or in one with other names, types or sizes, they end with status 1 and a line that names both (over
/// MPI; NCCL cannot tell). Wrong arguments throw std::invalid_argument.
class Communicator {
 public:
  /// A collective on tensors that has started. 0: there is nothing to wait for.
  using Ticket = std::uint64_t;

  virtual ~Communicator() = default;
  const Place& place() const { return place_; }
  int rank() const { return place_.rank; }
  int size() const { return place_.size; }

  // ---- Tensors (f32, f64, bf16), on the device of the communicator. A collective starts when the earlier work on
  // `stream` is done, and runs beside later work; until wait() nothing else may use its tensors. ----

  /// piece [n] = the sum over ranks of their whole[rank() * n, (rank() + 1) * n); whole [size() * n]. On the CPU added
  /// in the order of ranks, in the tensors' type (bf16: in f32, rounded once), so that the bits do not depend on timing
  /// or message sizes; over NCCL in an order of NCCL's own. `piece` may be a part of `whole`, at its own place; the
  /// rest of `whole` does not change.
  virtual Ticket reduce_scatter(Tensor piece, Tensor whole, const Stream& stream, const std::string& what) = 0;
  /// whole [size() * n] = the pieces [n] of all ranks, in their order. `piece` may be its own part of `whole`.
  virtual Ticket all_gather(Tensor whole, Tensor piece, const Stream& stream, const std::string& what) = 0;
  /// Later work on `stream` waits for the collective. On the CPU: returns when the collective is done.
  virtual void wait(Ticket ticket, const Stream& stream) = 0;

  /// After an error, before the tensors of collectives are freed: waits until no collective runs any more. If this
  /// takes longer than `seconds`, because other ranks do not come, all collectives stop, and every later call but
  /// abandon() (kernels/comm/launch.h) throws std::runtime_error.
  virtual void quiesce(double /*seconds*/) {}

  // ---- Host values. These return when they are done. ----

  /// values[i] = sum (in the order of ranks), least or largest over ranks: the same bits on every rank. A NaN on
  /// one rank gives NaN on all.
  virtual void all_reduce(std::span<double> values, Reduction reduction, const std::string& what) = 0;
  /// On rank 0 the bytes of every rank, by rank; on the others nothing. Lengths may differ.
  virtual std::vector<std::string> gather(const std::string& bytes, const std::string& what) = 0;
  /// Rank 0's bytes, on every rank.
  virtual std::string broadcast(const std::string& bytes, const std::string& what) = 0;
  void barrier(const std::string& what) { all_reduce({}, Reduction::max, what); }

  /// Bytes that this rank has sent in collectives on tensors, and seconds that the host has spent in wait() and in
  /// collectives on host values, since the start.
  struct Traffic {
    std::uint64_t bytes = 0;
    double seconds_waited = 0;
  };
  virtual Traffic traffic() const = 0;

 protected:
  explicit Communicator(const Place& place) : place_(place) {}
  Place place_;
};

/// Declare it after the tensors of collectives: before an exception destroys them, it waits for the collectives.
class QuietUnwinding {
 public:
  explicit QuietUnwinding(Communicator& communicator)
      : communicator_(communicator), exceptions_(std::uncaught_exceptions()) {}
  ~QuietUnwinding() {
    if (std::uncaught_exceptions() > exceptions_) communicator_.quiesce(10);
  }
  QuietUnwinding(const QuietUnwinding&) = delete;
  QuietUnwinding& operator=(const QuietUnwinding&) = delete;

 private:
  Communicator& communicator_;
  int exceptions_;
};

/// Exit status of a process that lost another rank (EX_TEMPFAIL: the same command may succeed).
inline constexpr int lost_rank_status = 75;

/// A process alone: collectives are copies. kernels/comm/launch.h makes the communicators of several processes.
std::unique_ptr<Communicator> single_communicator();

}  // namespace routescope::kernels
