// The process of a rank, for the operating system.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>

namespace routescope::kernels {

/// Plain bytes: ranks exchange them at the start.
struct Peer {
  std::array<char, 64> host{};  // ends with a zero
  std::int64_t process = 0;     // its number
  std::uint64_t started =
      0;  // ticks since the machine's start; distinguishes it from a later process of the same number
  std::uint64_t name_space = 0;  // the space in which the number counts (0: not known)
};

/// This process.
Peer this_peer();

enum class PeerState { unknown, running, stopped, gone };
/// Its state on this machine: unknown for a process of another machine or another space of process numbers.
PeerState state_of(const Peer& peer, const Peer& self);

/// "rank 2 (node3, process 4711)".
std::string describe(int rank, const Peer& peer);

}  // namespace routescope::kernels
