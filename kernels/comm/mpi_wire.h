// Messages between ranks, with deadlines. A thread that waits for a message also answers the questions of other ranks.
// No call returns or throws where a message failed: it ends the process (Control::end()) on the spot, because MPI may
// still write into the memory of messages that have started, which an exception would free on its way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/comm/mpi_control.h"

namespace routescope::kernels::mpi {

/// The description of a collective, which must be the same on every rank. It is sent before the data, so that ranks in
/// different collectives notice and do not mix their numbers.
struct Envelope {
  std::uint64_t number = 0;      // of the collective on this rank
  std::uint64_t count = 0;       // elements, where they must agree
  std::uint64_t bytes = 0;       // that follow, of a message of varying length
  std::array<char, 16> type{};   // of the elements, or the reduction
  std::array<char, 104> what{};  // the name of the collective and its subject
};

/// An envelope, and the data that fits beside it into a short message.
struct Head {
  Envelope envelope;
  std::array<std::byte, 896> bytes{};
};

class Wire {
 public:
  /// `halted`: once it is set, no message continues, and a waiting thread waits for the end of the process.
  Wire(MPI_Comm comm, Control& control, const std::atomic<bool>& halted);

  int rank() const { return rank_; }
  int size() const { return size_; }
  const CommunicatorOptions& options() const { return control_.options(); }

  /// Messages that have started. Their memory belongs to MPI until wait().
  struct Batch {
    std::vector<MPI_Request> requests;
    struct Expected {
      int peer = 0;
      std::int64_t least = -1, most = -1;  // bytes of a receive; -1: a send
    };
    std::vector<Expected> expected;
  };
  /// Any number of bytes, in messages of at most options().message_bytes. Between two ranks they are matched in the
  /// order in which they start.
  void send(Batch& batch, int peer, const void* data, std::size_t bytes);
  void receive(Batch& batch, int peer, void* data, std::size_t bytes);
  /// Receives the head of a message of any collective; its envelope shows whether the collective is another one.
  void receive_head(Batch& batch, int peer, Head& head);

  /// The name of the running collective, for the error after a timeout.
  void begin(std::uint64_t number, const std::string& what);
  /// Ends the process for an error of MPI or a message of another length than expected.
  void wait(Batch& batch);

  /// One message with its envelope, whose `bytes` says how many follow; short ones are one message of MPI.
  void send_message(int peer, Envelope envelope, std::span<const std::byte> bytes);
  /// Appends to `bytes`. Ends the process if the peer's envelope names another collective.
  void receive_message(int peer, const Envelope& expected, std::vector<std::byte>& bytes);
  /// Ends the process where two ranks are in different collectives.
  void check_envelope(int peer, const Envelope& found, const Envelope& expected) const;

 private:
  template <class Work>
  void or_end(const Work& work) const;
  void complete(Batch& batch);

  MPI_Comm comm_;
  Control& control_;
  const std::atomic<bool>& halted_;
  int rank_ = 0, size_ = 1;
  std::uint64_t number_ = 0;
  std::string what_;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace routescope::kernels::mpi
