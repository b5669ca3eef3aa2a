// Ranks that are threads of this process: their host communicator, and a lane that ends the process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/comm/lane.h"

namespace routescope::testing {

/// Where the threads of one job meet.
class Meeting;

class ThreadHost final : public kernels::Communicator {
 public:
  ThreadHost(int rank, int size, std::shared_ptr<Meeting> meeting);
  Ticket reduce_scatter(kernels::Tensor, kernels::Tensor, const kernels::Stream&, const std::string&) override;
  Ticket all_gather(kernels::Tensor, kernels::Tensor, const kernels::Stream&, const std::string&) override;
  void wait(Ticket, const kernels::Stream&) override {}
  void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override;
  std::vector<std::string> gather(const std::string& bytes, const std::string& what) override;
  std::string broadcast(const std::string& bytes, const std::string& what) override;
  Traffic traffic() const override { return {}; }

 private:
  std::shared_ptr<Meeting> meeting_;
};

/// As the lane over MPI, but alone: an overdue collective ends the process with status 75, and its line on standard
/// error says where the rank is and what `at_end` adds.
class EndingLane final : public kernels::Lane {
 public:
  EndingLane(int rank, std::function<std::string()> at_end) : rank_(rank), at_end_(std::move(at_end)) {}
  void come_to(std::uint64_t number, const std::string& what) override;
  void overdue(std::uint64_t number, const std::string& what, double seconds) override;
  void failed(int status, const std::string& line) override;
  void before_end(std::function<void()> act) override;

 private:
  int rank_;
  std::function<std::string()> at_end_;
  std::function<void()> act_;
};

/// Runs `body` as every rank of a job whose devices are the stand-in's, each over NCCL with a timeout of `timeout`
/// seconds. A rank that throws std::runtime_error has no communicator any more, and stays.
void run_nccl_ranks(int size, double timeout, const std::function<void(kernels::Communicator&)>& body);
/// The host communicators of a job, for ranks that a test starts itself.
std::vector<std::unique_ptr<kernels::Communicator>> thread_hosts(int size);

}  // namespace routescope::testing
