// What the emulator knows of the block that runs, and how its threads take turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/simt/emulator/fiber.h"
#include "tests/simt/emulator/order.h"
#include "tests/simt/emulator/simt.h"

// Set whenever a thread goes on.
extern uint3 threadIdx;

namespace simt {

/// What the lanes of one meeting showed; kept until the last of them has looked.
struct Shown {
  std::vector<std::byte> values;  // lane i's at i * bytes
  int readers = 0;
};

struct AsyncCopy {
  std::byte* dst;
  std::array<std::byte, 16> bytes;
  std::size_t size;
  std::uint64_t group;
};

struct Seat;

struct EmulatedThread {
  enum class State : std::uint8_t { unstarted, runs, at_barrier, at_meeting, left };
  State state = State::unstarted;
  int source = 0;              // of a shuffle: the lane that it reads from
  Seat* seat = nullptr;        // where it stands, once started and until it leaves
  std::uint64_t word = 0;      // what it brings to a shuffle or a vote
  std::uint64_t received = 0;  // and what it gets
  const void* mine = nullptr;  // what it brings to another meeting
  Shown* shown = nullptr;      // and what all brought
  Where where;                 // of the meeting at which it waits
  std::vector<AsyncCopy> copies;
  std::uint64_t open_group = 0;
};

/// What a meeting is for: each lane reads one word, all get the votes, or all may read all.
enum class Exchange : std::uint8_t { shuffle, vote, values };

/// A fiber on which threads run, one after another.
struct Seat {
  explicit Seat(Fiber::Loop loop) : fiber(std::move(loop)) {}
  Fiber fiber;
  int thread = -1;
};

/// Lanes of one warp that wait for each other.
struct Group {
  Exchange exchange;
  unsigned mask;
  unsigned arrived;
  const char* what;
  std::size_t bytes;
};

struct Warp {
  std::vector<Group> groups;
};

/// "file.cu:12" and "0x0000ffff", for messages.
std::string text_of(const Where& where);
std::string hexadecimal(unsigned mask);

/// Thrown through a kernel to take its frames down after another thread failed.
struct Abandon {};

class Machine {
 public:
  static Machine& instance() { return made_ ? *made_ : make(); }
  /// For what only kernels may call. Throws std::logic_error outside of one.
  static Machine& in_kernel() {
    Machine& machine = instance();
    if (!machine.running()) throw std::logic_error("emulated device: called outside of a kernel");
    return machine;
  }

  void set_seed(std::uint64_t seed);
  std::uint64_t seed() const { return seed_; }

  void run(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

  // What the running thread asks for.
  bool running() const { return current_ >= 0; }
  int current() const { return current_; }
  EmulatedThread& thread() { return threads_[static_cast<std::size_t>(current_)]; }
  void* shared_memory(std::size_t size, std::size_t align);
  void barrier(const Where& where);
  /// The thread's word, mine, source are set.
  void meet(Exchange exchange, unsigned mask, const char* what, const Where& where, std::size_t bytes);
  void end_meeting();
  void maybe_switch();
  /// "kernel NAME, block (x, y, z)" of the running block, for messages; empty between launches.
  std::string place() const;

 private:
  Machine();
  ~Machine();
  static Machine& make();
  static inline Machine* made_ = nullptr;

  void run_block(const std::function<void()>& body);
  void prepare_shared_memory();
  Fiber& seat_loop(Seat& seat);
  Seat& free_seat();
  void run_thread(const std::function<void()>& body);
  /// Sets what a thread sees of itself.
  void go_on_with(int thread) {
    current_ = thread;
    const auto t = static_cast<unsigned>(thread);
    if (block_.y == 1 && block_.z == 1)
      threadIdx = {t, 0, 0};
    else
      threadIdx = {t % block_.x, t / block_.x % block_.y, t / block_.x / block_.y};
  }
  void wait();
  void complete(const Group& group);
  void abandon_block();
  std::string stuck() const;
  std::string threads_text(const std::vector<int>& threads) const;

  std::uint64_t seed_;
  Random random_;
  Order order_;

  const char* kernel_ = nullptr;
  dim3 block_;
  std::size_t shared_bytes_ = 0;
  const std::function<void()>* body_ = nullptr;

  int current_ = -1;
  int block_threads_ = 0;
  int left_ = 0;
  int at_barrier_ = 0;
  Where barrier_;  // at which they wait
  std::vector<EmulatedThread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<Shown>> shown_storage_;
  std::vector<Shown*> shown_free_;

  Fiber host_;
  std::vector<std::unique_ptr<Seat>> seats_;
  std::vector<Seat*> free_seats_;
  Seat* seat_ = nullptr;  // that runs; null: the host
  bool abandoning_ = false;
  bool closing_ = false;
  std::optional<std::string> error_;
};

}  // namespace simt
