// A lock for file systems without locks: files with their holder's process and a heartbeat.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

namespace routescope::train {

struct LeaseTimes {
  std::chrono::milliseconds beat{5'000};    // between two heartbeats
  std::chrono::milliseconds stale{30'000};  // a lease of another machine without one for so long is given up
};

/// Held from construction to destruction, by one process of any machine that sees the file system. Each holder has a
/// file DIR/1, DIR/2, ...; the last one counts. It relies on exclusive creation, which NFS (version 3 and later) and
/// Lustre have, on no clock of another machine, and not on fresh directory listings. A process that stands still for
/// longer than `stale` may lose it: check() says so.
class Lease {
 public:
  /// Makes the directory if necessary. A lease of a dead process of this machine is taken over at once; one of another
  /// machine after `stale` without a heartbeat, for which this waits. Throws Error naming the process that holds it.
  explicit Lease(std::filesystem::path dir, LeaseTimes times = {});
  /// Gives the lease back.
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// Throws Error if another process took the lease, or the file is gone.
  void check() const;

 private:
  std::filesystem::path file(std::uint64_t number) const;
  /// False if there is one.
  bool create();
  /// False if the lease is lost.
  bool beat(bool last);
  void remove_old() const;

  std::filesystem::path dir_;
  LeaseTimes times_;
  std::string token_;         // tells this lease from all others
  std::uint64_t number_ = 0;  // the holder's file
  std::uint64_t beats_ = 0;
  std::atomic<bool> lost_ = false;
  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::thread heart_;
};

}  // namespace routescope::train
