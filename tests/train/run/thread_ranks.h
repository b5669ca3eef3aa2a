// Ranks that are threads of this process: a communicator for tests in which no process is lost.
#pragma once

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/comm/communicator.h"

namespace routescope::testing {

/// The meeting point of the threads.
class Meeting {
 public:
  explicit Meeting(int size) : given_(static_cast<std::size_t>(size)) {}

  /// Passes `mine`, waits until every rank has passed something, calls `take` with all of it (by rank), and waits until
  /// every rank has done so.
  void exchange(int rank, const void* mine, const std::function<void(const std::vector<const void*>&)>& take) {
    given_[static_cast<std::size_t>(rank)] = mine;
    wait();
    take(given_);
    wait();
  }
  /// A rank has failed: all calls that wait, and all later calls, throw.
  void leave() {
    const std::lock_guard lock(mutex_);
    left_ = true;
    changed_.notify_all();
  }

 private:
  void wait() {
    std::unique_lock lock(mutex_);
    const std::uint64_t round = round_;
    if (++here_ == given_.size()) {
      here_ = 0;
      ++round_;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return left_ || round_ != round; });
    if (round_ == round) throw std::runtime_error("another rank left");
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<const void*> given_;
  std::size_t here_ = 0;
  std::uint64_t round_ = 0;
  bool left_ = false;
};

class ThreadCommunicator final : public kernels::Communicator {
 public:
  ThreadCommunicator(Meeting& meeting, int rank, int size)
      : kernels::Communicator({.rank = rank, .size = size, .local_rank = rank}), meeting_(meeting) {}

  Ticket reduce_scatter(kernels::Tensor piece, kernels::Tensor whole, const kernels::Stream&,
                        const std::string&) override {
    std::vector<float> sum(static_cast<std::size_t>(piece.numel()), 0.0F);
    meeting_.exchange(rank(), whole.as<float>(), [&](const std::vector<const void*>& given) {
      for (const void* of_rank : given) {
        const float* from = static_cast<const float*>(of_rank) + rank() * piece.numel();
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += from[i];
      }
    });
    std::memcpy(piece.data, sum.data(), piece.bytes());
    return 0;
  }
  Ticket all_gather(kernels::Tensor whole, kernels::Tensor piece, const kernels::Stream&, const std::string&) override {
    const std::vector<std::byte> mine(static_cast<const std::byte*>(piece.data),
                                      static_cast<const std::byte*>(piece.data) + piece.bytes());
    meeting_.exchange(rank(), mine.data(), [&](const std::vector<const void*>& given) {
      auto* to = static_cast<std::byte*>(whole.data);
      for (std::size_t r = 0; r < given.size(); ++r) std::memcpy(to + r * mine.size(), given[r], mine.size());
    });
    return 0;
  }
  void wait(Ticket, const kernels::Stream&) override {}

  void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override {
    std::vector<double> out;
    meeting_.exchange(rank(), values.data(), [&](const std::vector<const void*>& given) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        out.push_back(static_cast<const double*>(given[0])[i]);
        for (std::size_t r = 1; r < given.size(); ++r) {
          const double value = static_cast<const double*>(given[r])[i];
          if (reduction == kernels::Reduction::sum) out[i] += value;
          if (reduction == kernels::Reduction::min) out[i] = std::min(out[i], value);
          if (reduction == kernels::Reduction::max) out[i] = std::max(out[i], value);
        }
      }
    });
    std::copy(out.begin(), out.end(), values.begin());
    after_all_reduce(what);
  }
  std::vector<std::string> gather(const std::string& bytes, const std::string&) override {
    std::vector<std::string> out;
    meeting_.exchange(rank(), &bytes, [&](const std::vector<const void*>& given) {
      for (const void* text : given)
        if (rank() == 0) out.push_back(*static_cast<const std::string*>(text));
    });
    return out;
  }
  std::string broadcast(const std::string& bytes, const std::string&) override {
    std::string out;
    meeting_.exchange(rank(), &bytes,
                      [&](const std::vector<const void*>& given) { out = *static_cast<const std::string*>(given[0]); });
    return out;
  }
  Traffic traffic() const override { return {}; }

  /// Called on this rank after each all_reduce with its name, to cause a fault at a certain moment.
  std::function<void(const std::string& what)> after_all_reduce = [](const std::string&) {};

 private:
  Meeting& meeting_;
};

/// Runs `body` as `size` ranks, each in its own thread. Returns the messages of their exceptions by rank, "" for none.
inline std::vector<std::string> run_ranks(int size, const std::function<void(ThreadCommunicator&)>& body) {
  Meeting meeting(size);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      omp_set_num_threads(1);
      ThreadCommunicator communicator(meeting, rank, size);
      try {
        body(communicator);
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
        meeting.leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace routescope::testing
