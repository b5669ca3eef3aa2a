// A stand-in for NCCL between threads of this process, which checks the rules of NCCL's guide: one thread at a time
// operates a communicator, ranks call the same collectives in the same order, nothing is used after it was freed. As in
// NCCL 2.28, a communicator that does not block does each collective in a thread of its own, whose memory
// ncclCommGetAsyncError() frees; ranks connect, and take memory, when a collective of a kind first needs it.
#pragma once

#include <nccl.h>

#include <chrono>
#include <string>
#include <vector>

namespace routescope::testing {

struct FakeNccl {
  std::chrono::microseconds call_time{0};  // so long every call lasts at least, so that calls of two threads meet
};
/// Before the first call of a test: nothing has happened yet.
void start_fake_nccl(const FakeNccl& settings = {});

/// The rules that were broken so far, each in one line.
std::vector<std::string> broken_rules();
/// Threads that NCCL has started so far.
int nccl_threads();
/// Calls of ncclCommAbort so far.
int nccl_aborts();
/// The network reports an error to every communicator.
void break_fake_network();

}  // namespace routescope::testing
