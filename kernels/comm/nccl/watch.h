// The thread that watches collectives on a CUDA device: a kernel waits for ever for a device whose rank has ended.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/comm/lane.h"

namespace routescope::kernels {

/// Throws std::runtime_error with CUDA's own message.
void check_cuda(cudaError_t status, const std::string& what);

/// Owns NCCL's communicator: every call to it goes through call(), because NCCL allows one thread at a time ("Thread
/// Safety" of its guide), and the watching thread asks it for errors too. The communicator blocks, so that NCCL starts
/// no thread of its own for a collective; a call that connects ranks, and so waits for them, is watched like a
/// collective.
class NcclWatch {
 public:
  using Clock = std::chrono::steady_clock;

  /// A collective that has started, until the watching thread sees that it is done.
  struct Item {
    std::uint64_t number = 0;
    std::string what;
    cudaEvent_t ready = nullptr;  // the work before it is done
    cudaEvent_t done = nullptr;
  };

  /// `device` is that of this rank. Without a lane nothing is overdue.
  NcclWatch(Lane* lane, int rank, int device, double timeout_seconds);
  /// After all collectives are done, or after abandon().
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  /// Runs `act` with NCCL's communicator while no other thread uses it; `act` may set it. `number` is that of the
  /// collective to which this rank comes. Throws std::runtime_error with NCCL's own messages.
  void call(std::uint64_t number, const std::string& what, const std::function<ncclResult_t(ncclComm_t&)>& act);
  void add(Item item);
  /// The event that a collective which has not ended will set; null if it has ended.
  cudaEvent_t done_event(std::uint64_t number);
  bool idle();
  /// Waits until no collective is watched, as long as `seconds`.
  void quiesce(double seconds);
  cudaEvent_t take_event();
  double seconds_in_calls() const { return seconds_in_calls_; }
  /// After an exception: the thread goes on, with all that it uses, until the process ends.
  void abandon();

 private:
  struct State;
  static void watch(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  double seconds_in_calls_ = 0;
  std::thread thread_;
};

}  // namespace routescope::kernels
