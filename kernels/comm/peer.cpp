#include "kernels/comm/peer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace routescope::kernels {

namespace {

/// State and start of a process from /proc/PID/stat. The process's name stands before them in brackets, and may hold
/// any character.
struct Stat {
  char state = 0;  // 0: there is none
  std::uint64_t started = 0;
};

Stat stat_of(std::int64_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  if (!std::getline(file, text)) return {};
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream fields(text.substr(name_end + 1));
  Stat out;
  fields >> out.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> out.started;
  return fields ? out : Stat{};
}

}  // namespace

Peer this_peer() {
  Peer peer;
  ::gethostname(peer.host.data(), peer.host.size() - 1);
  peer.process = ::getpid();
  peer.started = stat_of(peer.process).started;
  struct stat name_space {};
  if (::stat("/proc/self/ns/pid", &name_space) == 0) peer.name_space = name_space.st_ino;
  return peer;
}

PeerState state_of(const Peer& peer, const Peer& self) {
  if (peer.host != self.host || peer.name_space != self.name_space || peer.name_space == 0 || peer.started == 0) {
    return PeerState::unknown;
  }
  const Stat now = stat_of(peer.process);
  if (now.state == 0 || now.state == 'Z' || now.state == 'X' || now.started != peer.started) return PeerState::gone;
  return now.state == 'T' || now.state == 't' ? PeerState::stopped : PeerState::running;
}

std::string describe(int rank, const Peer& peer) {
  return "rank " + std::to_string(rank) + " (" + peer.host.data() + ", process " + std::to_string(peer.process) + ")";
}

}  // namespace routescope::kernels
