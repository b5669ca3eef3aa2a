// The one thread of a process that calls MPI, from MPI_Init_thread to MPI_Finalize.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "kernels/comm/lane.h"
#include "kernels/comm/mpi_wire.h"

namespace routescope::kernels::mpi {

/// It runs collectives one after the other, in the order of submission, while the threads that submitted them compute.
/// Between and during collectives it answers other ranks. It is also the Lane for the collectives of another library.
class MpiThread final : public Lane {
 public:
  /// Starts MPI; collective. Ends the process with lost_rank_status if not all processes come within
  /// options.start_seconds. Throws std::runtime_error.
  MpiThread(const Place& launched, const CommunicatorOptions& options);
  ~MpiThread() override;
  MpiThread(const MpiThread&) = delete;
  MpiThread& operator=(const MpiThread&) = delete;

  const Place& place() const { return place_; }

  /// `body` runs on this object's thread. Returns its number: 1, 2, ...
  std::uint64_t submit(const std::string& what, std::function<void(Wire&, std::uint64_t)> body);
  /// Waits until a submitted body and all before it are done.
  void wait(std::uint64_t number);
  /// Communicator::quiesce().
  void quiesce(double seconds);
  bool halted() const { return halted_; }
  /// Ends MPI; collective, after everything submitted. False if MPI does not end: then keep this object, because its
  /// thread is still inside MPI.
  bool close();

  void come_to(std::uint64_t number, const std::string& what) override;
  void overdue(std::uint64_t number, const std::string& what, double seconds) override;
  void failed(int status, const std::string& line) override;
  void before_end(std::function<void()> act) override;
  [[noreturn]] void abandon(int status, const std::string& whole_line);

 private:
  struct Job {
    std::uint64_t number = 0;
    std::string what;
    std::function<void(Wire&, std::uint64_t)> body;
  };
  std::vector<Peer> start(const Place& launched);
  void serve(Wire& wire);
  void post(std::function<void()> act);

  CommunicatorOptions options_;
  Place place_;
  MPI_Comm data_ = MPI_COMM_NULL, control_comm_ = MPI_COMM_NULL;

  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<Job> jobs_;
  std::uint64_t submitted_ = 0, finished_ = 0;
  bool woken_ = false, closing_ = false, closed_ = false;
  std::atomic<bool> halted_ = false;  // no collective goes on
  std::unique_ptr<Control> control_;
  std::thread thread_;
};

}  // namespace routescope::kernels::mpi
