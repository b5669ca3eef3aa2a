// How ranks find the reason when a collective stops: questions, answers and notices, over a communicator of their own.
#pragma once

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/comm/launch.h"
#include "kernels/comm/peer.h"

namespace routescope::kernels::mpi {

using Clock = std::chrono::steady_clock;

/// An error of MPI itself: in a job that ran, a rank or the network between ranks is lost.
class MpiError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// Throws MpiError with MPI's own text.
void check(int status, const char* what);

/// All calls but set_position(), keep_for_end() and post() run on the thread that owns MPI. This thread calls poll() at
/// least twenty times a second, so a rank answers as long as its process runs, even if its other threads hang.
class Control {
 public:
  /// The lanes of a rank: collectives that MPI does, and those of another library.
  enum LaneName : int { over_mpi = 0, over_device = 1, num_lanes = 2 };

  Control(MPI_Comm comm, std::vector<Peer> peers, CommunicatorOptions options);
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  const CommunicatorOptions& options() const { return options_; }
  const std::vector<Peer>& peers() const { return peers_; }

  /// Answers questions, obeys notices (which end the process), checks for neighbours that died. Costs an MPI_Test.
  void poll();

  /// Sets the answer of this rank: the last collective of a lane that it has come to. From any thread.
  void set_position(LaneName lane, std::uint64_t number, const std::string& what);
  /// Runs before end(), for two seconds at most. From any thread.
  void keep_for_end(std::function<void()> act);

  /// Runs `act` on this thread at the next poll(). From any thread.
  void post(std::function<void()> act);

  /// Asks every rank for its position. Returns if every rank has come to the collective by now.
  void overdue(LaneName lane, std::uint64_t number, const std::string& what, double seconds);
  /// Prints "PROGRAM: error: `line`", tells every rank that is not in `silent`, and ends the process. If several
  /// ranks have a line at once, the lowest rank prints its own.
  [[noreturn]] void end(int status, const std::string& line, const std::vector<bool>& silent = {});
  /// The same, with the line as it is. An empty line prints nothing.
  [[noreturn]] void end_with(int status, const std::string& whole_line, const std::vector<bool>& silent = {});

  /// Before MPI_Finalize; no other call comes after it.
  void close();

 private:
  enum Type : int { question = 1, answer = 2, notice = 3 };
  /// All messages have one size, so that one receive fits every message.
  struct Message {
    int type = 0;
    int lane = 0;
    std::uint64_t number = 0;  // question: of the collective; answer: of the last that the rank has come to
    int status = 0;            // notice: exit status
    std::array<char, 200> what{};
  };
  struct Sending {
    Message message;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  struct Position {
    std::uint64_t number = 0;
    std::string what;
  };

  /// A message that cannot be sent is lost; its rank then counts as silent.
  void send(int rank, const Message& message);
  void receive();
  /// Ends receiving. Throws MpiError unless the process is ending.
  void cannot_receive(int error);
  void obey(const Message& message, int from);
  void look_after_neighbours();
  void poll_for(std::chrono::milliseconds time);
  void wait_for_turn();
  [[noreturn]] void leave(int status);

  MPI_Comm comm_;
  int rank_ = 0;
  std::vector<Peer> peers_;
  CommunicatorOptions options_;
  std::vector<int> neighbours_;  // ranks whose processes this machine knows

  Message incoming_;
  MPI_Request receiving_ = MPI_REQUEST_NULL;
  std::list<Sending> sending_;

  std::mutex mutex_;
  std::array<Position, num_lanes> positions_;
  std::function<void()> act_for_end_;
  std::deque<std::function<void()>> posted_;

  Clock::time_point last_question_{};
  Clock::time_point last_look_ = Clock::now();
  bool ending_ = false;                             // neighbours are not looked after, MPI's errors not told any more
  std::vector<std::optional<Position>> answers_;    // of the roll call under way
  std::array<std::uint64_t, num_lanes> doubted_{};  // the collective that all had come to when this rank asked
};

}  // namespace routescope::kernels::mpi
