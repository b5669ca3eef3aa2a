#include "tests/kernels/comm/nccl/thread_host.h"

#include <unistd.h>

#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "kernels/comm/nccl/nccl.h"
#include "tests/kernels/comm/nccl/fake_cuda.h"
#include "tests/kernels/comm/nccl/fake_nccl.h"

namespace routescope::testing {

class Meeting {
 public:
  explicit Meeting(int size) : all_(size), texts_(static_cast<std::size_t>(size)) {}
  /// Every rank's text, on every rank.
  std::vector<std::string> exchange(int rank, const std::string& text) {
    texts_[static_cast<std::size_t>(rank)] = text;
    all_.arrive_and_wait();
    std::vector<std::string> out = texts_;
    all_.arrive_and_wait();
    return out;
  }

 private:
  std::barrier<> all_;
  std::vector<std::string> texts_;
};

ThreadHost::ThreadHost(int rank, int size, std::shared_ptr<Meeting> meeting)
    : Communicator({.rank = rank, .size = size, .local_rank = rank}), meeting_(std::move(meeting)) {}

ThreadHost::Ticket ThreadHost::reduce_scatter(kernels::Tensor, kernels::Tensor, const kernels::Stream&,
                                              const std::string&) {
  throw std::logic_error("tensors travel over NCCL");
}
ThreadHost::Ticket ThreadHost::all_gather(kernels::Tensor, kernels::Tensor, const kernels::Stream&,
                                          const std::string&) {
  throw std::logic_error("tensors travel over NCCL");
}

void ThreadHost::all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string&) {
  const std::vector<std::string> all =
      meeting_->exchange(rank(), {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  for (std::size_t i = 0; i < values.size(); ++i) {
    double out = 0;
    for (std::size_t r = 0; r < all.size(); ++r) {
      const double value = reinterpret_cast<const double*>(all[r].data())[i];
      if (r == 0 || std::isnan(value))
        out = value;
      else if (!std::isnan(out))
        out = reduction == kernels::Reduction::sum   ? out + value
              : reduction == kernels::Reduction::min ? std::min(out, value)
                                                     : std::max(out, value);
    }
    values[i] = out;
  }
}

std::vector<std::string> ThreadHost::gather(const std::string& bytes, const std::string&) {
  std::vector<std::string> all = meeting_->exchange(rank(), bytes);
  return rank() == 0 ? all : std::vector<std::string>{};
}

std::string ThreadHost::broadcast(const std::string& bytes, const std::string&) {
  return meeting_->exchange(rank(), bytes)[0];
}

namespace {

/// One rank ends the process; the others stay where they are.
std::mutex& ending() {
  static auto* const one = new std::mutex;
  return *one;
}

}  // namespace

void EndingLane::come_to(std::uint64_t, const std::string&) {}
void EndingLane::overdue(std::uint64_t, const std::string& what, double) {
  failed(75, "rank " + std::to_string(rank_) + " waits in " + what);
}
void EndingLane::failed(int status, const std::string& line) {
  ending().lock();
  if (act_) act_();
  std::fprintf(stderr, "%s%s\n", line.c_str(), at_end_().c_str());
  ::_exit(status);
}
void EndingLane::before_end(std::function<void()> act) {
  const std::lock_guard lock(ending());
  act_ = std::move(act);
}

std::vector<std::unique_ptr<kernels::Communicator>> thread_hosts(int size) {
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<kernels::Communicator>> out;
  for (int r = 0; r < size; ++r) out.push_back(std::make_unique<ThreadHost>(r, size, meeting));
  return out;
}

void run_nccl_ranks(int size, double timeout, const std::function<void(kernels::Communicator&)>& body) {
  set_fake_devices(size);
  const auto rules = [] {
    std::string out;
    for (const std::string& rule : broken_rules()) out += "; broken rule: " + rule;
    return out + "; " + std::to_string(nccl_aborts()) + " aborts";
  };
  auto hosts = thread_hosts(size);
  std::vector<std::thread> ranks;
  for (int r = 0; r < size; ++r)
    ranks.emplace_back([&, r] {
      // The lane of a process lives as long as the process.
      static std::vector<std::unique_ptr<EndingLane>>& lanes = *new std::vector<std::unique_ptr<EndingLane>>;
      EndingLane* lane = nullptr;
      {
        const std::lock_guard lock(ending());
        lane = lanes.emplace_back(std::make_unique<EndingLane>(r, rules)).get();
      }
      try {
        const auto communicator = kernels::nccl_communicator(std::move(hosts[static_cast<std::size_t>(r)]), lane,
                                                             {.timeout_seconds = timeout, .advice = ""});
        body(*communicator);
      } catch (const std::runtime_error&) {
        // main() would call abandon(). Here the rank stays, so that it is seen what the watching thread does.
        std::this_thread::sleep_for(std::chrono::hours(1));
      }
    });
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace routescope::testing
