// How threads take turns and meet (machine.h). All that stands between a kernel and the switch of stacks is inlined
// here: a processor mispredicts every return on a stack that it did not see called.
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/simt/emulator/machine.h"

namespace simt {

namespace {

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string call_text(const Where& where, const char* what, unsigned mask) {
  return std::string(what) + " of " + text_of(where) + " with mask " + hexadecimal(mask);
}

[[noreturn]] void fail_unnamed(int lane, unsigned mask, const char* what, const Where& where) {
  fail("lane " + std::to_string(lane) + " calls " + call_text(where, what, mask) + ", which does not name it");
}
[[noreturn]] void fail_differing(int lane, unsigned mask, const char* what, const Where& where, const Group& other,
                                 std::size_t bytes) {
  fail("lane " + std::to_string(lane) + " reached " + call_text(where, what, mask) + " while lane " +
       std::to_string(std::countr_zero(other.arrived)) + " waits at " + other.what + " with mask " +
       hexadecimal(other.mask) + (other.bytes == bytes ? "" : " and values of another size"));
}

}  // namespace

/// Leaves the running thread, which is ready or not, for the next ready one; returns when it is its turn again.
[[gnu::always_inline]] inline void Machine::wait() {
  if (abandoning_) throw Abandon{};
  Seat* mine = seat_;
  const int self = current_, next = order_.take(random_);
  if (next == self) return;
  if (next < 0) {
    mine->fiber.switch_to(host_);
  } else {
    EmulatedThread& chosen = threads_[static_cast<std::size_t>(next)];
    if (chosen.seat) {
      go_on_with(next);
    } else {
      // The new thread's own loop sets what it sees.
      Seat& seat = free_seat();
      seat.thread = next;
      chosen.seat = &seat;
    }
    seat_ = chosen.seat;
    mine->fiber.switch_to(seat_->fiber);
  }
  if (abandoning_) throw Abandon{};
}

void Machine::maybe_switch() {
  if (!running() || random_.below(4) != 0) return;
  order_.add(current_);
  wait();
}

void Machine::barrier(const Where& where) {
  if (at_barrier_ == 0)
    barrier_ = where;
  else if (!same_place(barrier_, where))
    throw std::runtime_error("reached __syncthreads of " + text_of(where) + " while another thread waits at that of " +
                             text_of(barrier_));
  EmulatedThread& self = thread();
  self.state = EmulatedThread::State::at_barrier;
  if (++at_barrier_ == block_threads_) {
    at_barrier_ = 0;
    for (int t = 0; t < block_threads_; ++t) {
      threads_[static_cast<std::size_t>(t)].state = EmulatedThread::State::runs;
      order_.add(t);
    }
  }
  wait();
}

[[gnu::always_inline]] inline void Machine::meet(Exchange exchange, unsigned mask, const char* what, const Where& where,
                                                 std::size_t bytes) {
  const int lane = current_ % kWarp;
  if ((mask >> lane & 1u) == 0) fail_unnamed(lane, mask, what, where);
  std::vector<Group>& groups = warps_[static_cast<std::size_t>(current_ / kWarp)].groups;
  std::size_t g = 0;
  for (; g < groups.size(); ++g) {
    const Group& group = groups[g];
    if (group.mask == mask && group.bytes == bytes && (group.what == what || std::strcmp(group.what, what) == 0)) break;
    if ((group.mask & mask) != 0) fail_differing(lane, mask, what, where, group, bytes);
  }
  if (g == groups.size()) groups.push_back({exchange, mask, 0, what, bytes});
  EmulatedThread& self = thread();
  self.state = EmulatedThread::State::at_meeting;
  self.where = where;
  groups[g].arrived |= 1u << lane;
  if (groups[g].arrived == mask) {
    complete(groups[g]);
    groups[g] = groups.back();
    groups.pop_back();
  }
  wait();
}

/// Gives each lane what it came for and lets all of them go on.
void Machine::complete(const Group& group) {
  const int base = current_ / kWarp * kWarp;
  EmulatedThread* lanes = &threads_[static_cast<std::size_t>(base)];
  const auto each = [&group](auto&& body) {
    for (unsigned rest = group.mask; rest != 0; rest &= rest - 1) body(std::countr_zero(rest));
  };
  each([&](int lane) { lanes[lane].state = EmulatedThread::State::runs; });
  if (group.exchange == Exchange::shuffle) {
    each([&](int lane) { lanes[lane].received = lanes[lanes[lane].source].word; });
  } else if (group.exchange == Exchange::vote) {
    unsigned votes = 0;
    each([&](int lane) { votes |= lanes[lane].word != 0 ? 1u << lane : 0u; });
    each([&](int lane) { lanes[lane].received = votes; });
  } else if (group.bytes > 0) {
    if (shown_free_.empty()) {
      shown_storage_.push_back(std::make_unique<Shown>());
      shown_free_.push_back(shown_storage_.back().get());
    }
    Shown* shown = shown_free_.back();
    shown_free_.pop_back();
    shown->values.resize(std::max(shown->values.size(), kWarp * group.bytes));
    shown->readers = std::popcount(group.mask);
    each([&](int lane) {
      std::memcpy(shown->values.data() + static_cast<std::size_t>(lane) * group.bytes, lanes[lane].mine, group.bytes);
      lanes[lane].shown = shown;
    });
  }
  order_.add(base / kWarp, group.mask);
}

void Machine::end_meeting() {
  Shown* shown = std::exchange(thread().shown, nullptr);
  if (shown && --shown->readers == 0) shown_free_.push_back(shown);
}

// ---- what kernels call ----------------------------------------------------------------------------------------------

int lane() {
  return Machine::instance().current() % kWarp;
}

void barrier(const Where& where) {
  Machine::in_kernel().barrier(where);
}

void maybe_switch() {
  Machine::instance().maybe_switch();
}

Meeting::Meeting(unsigned mask, const char* what, const Where& where, const void* mine, std::size_t bytes)
    : bytes_(bytes) {
  Machine& machine = Machine::in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.mine = mine;
  machine.meet(Exchange::values, mask, what, where, bytes);
  values_ = thread.shown ? thread.shown->values.data() : nullptr;
}

Meeting::~Meeting() {
  Machine::instance().end_meeting();
}

std::uint64_t exchange_word(unsigned mask, const char* what, const Where& where, std::uint64_t mine, std::size_t bytes,
                            int source) {
  if ((mask >> source & 1u) == 0)
    fail(std::string(what) + " reads from lane " + std::to_string(source) + ", which the mask does not name");
  Machine& machine = Machine::in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.word = mine;
  thread.source = source;
  machine.meet(Exchange::shuffle, mask, what, where, bytes);
  return thread.received;
}

unsigned vote(unsigned mask, const char* what, const Where& where, bool yes) {
  Machine& machine = Machine::in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.word = yes ? 1 : 0;
  machine.meet(Exchange::vote, mask, what, where, sizeof yes);
  return static_cast<unsigned>(thread.received);
}

}  // namespace simt
