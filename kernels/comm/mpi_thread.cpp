#include "kernels/comm/mpi_thread.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>  // program_invocation_short_name
#include <cmath>
#include <csignal>
#include <future>
#include <stdexcept>

namespace routescope::kernels::mpi {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kIdlePoll{50};  // an idle rank answers within this
constexpr std::chrono::seconds kFinalizeTime{30};

/// Blocks signals on this thread and those that MPI starts: other threads wait for signals, and a handler must not run
/// inside MPI or a matrix product. Also makes short sleeps short.
void settle_in() {
  sigset_t all;
  sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
}

[[noreturn]] void nobody_came(const Place& launched, double seconds) {
  std::this_thread::sleep_for(milliseconds(200) * std::min(launched.rank, 50));
  const std::string line = std::string(program_invocation_short_name) + ": error: MPI did not start within " +
                           std::to_string(std::lround(seconds)) + " s: not all of the " +
                           std::to_string(launched.size) + " processes came (this is " +
                           describe(launched.rank, this_peer()) + ")\n";
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) {
    // Standard error is closed: only the status is left.
  }
  ::_exit(lost_rank_status);
}

}  // namespace

MpiThread::MpiThread(const Place& launched, const CommunicatorOptions& options) : options_(options) {
  // MPI counts in int; the head of a message is never split.
  options_.message_bytes = std::clamp<std::size_t>(options_.message_bytes, 4096, std::size_t{1} << 30);
  std::promise<void> started;
  std::future<void> start_result = started.get_future();
  thread_ = std::thread([this, launched, promise = std::move(started)]() mutable {
    settle_in();
    std::unique_ptr<Wire> wire;
    try {
      std::vector<Peer> peers = start(launched);
      control_ = std::make_unique<Control>(control_comm_, std::move(peers), options_);
      wire = std::make_unique<Wire>(data_, *control_, halted_);
    } catch (...) {
      MPI_Finalize();
      promise.set_exception(std::current_exception());
      return;
    }
    promise.set_value();
    try {
      serve(*wire);
    } catch (const MpiError& error) {
      control_->end(lost_rank_status, error.what());
    } catch (const std::exception& error) {
      control_->end(1, error.what());
    }
  });
  if (start_result.wait_for(std::chrono::duration<double>(options.start_seconds)) != std::future_status::ready) {
    nobody_came(launched, options.start_seconds);
  }
  try {
    start_result.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

MpiThread::~MpiThread() {
  if (thread_.joinable()) thread_.join();
}

std::vector<Peer> MpiThread::start(const Place& launched) {
  // Only the thread that initialises MPI may call it.
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "start");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "error handler");
  check(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "error handler");
  if (provided < MPI_THREAD_FUNNELED) throw std::runtime_error("MPI: found no support for threads, expected some");
  check(MPI_Comm_rank(MPI_COMM_WORLD, &place_.rank), "rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &place_.size), "size");
  if (place_.size != launched.size) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
    int length = 0;
    MPI_Get_library_version(version, &length);
    throw std::runtime_error("found " + std::to_string(launched.size) +
                             " processes started together, of which MPI sees " + std::to_string(place_.size) +
                             ": the launcher is not that of this program's MPI (" +
                             std::string(version).substr(0, std::string(version).find_first_of(",\n")) +
                             "); use its mpirun, or srun --mpi=pmix");
  }
  check(MPI_Comm_dup(MPI_COMM_WORLD, &data_), "communicator");
  check(MPI_Comm_dup(MPI_COMM_WORLD, &control_comm_), "communicator");
  MPI_Comm machine = MPI_COMM_NULL;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine), "ranks of a machine");
  check(MPI_Comm_rank(machine, &place_.local_rank), "rank");
  check(MPI_Comm_free(&machine), "ranks of a machine");
  std::vector<Peer> peers(static_cast<std::size_t>(place_.size));
  const Peer self = this_peer();
  check(MPI_Allgather(&self, sizeof self, MPI_BYTE, peers.data(), sizeof self, MPI_BYTE, MPI_COMM_WORLD),
        "ranks' processes");
  return peers;
}

void MpiThread::serve(Wire& wire) {
  std::unique_lock lock(mutex_);
  while (!closing_ || !jobs_.empty()) {
    if (jobs_.empty()) {
      work_.wait_for(lock, kIdlePoll, [this] { return !jobs_.empty() || closing_ || woken_; });
      woken_ = false;
    }
    if (jobs_.empty()) {
      lock.unlock();
      control_->poll();
      lock.lock();
      continue;
    }
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    wire.begin(job.number, job.what);
    job.body(wire, job.number);
    control_->poll();
    lock.lock();
    finished_ = job.number;
    done_.notify_all();
  }
  lock.unlock();
  control_->close();
  check(MPI_Comm_free(&data_), "communicator");
  check(MPI_Comm_free(&control_comm_), "communicator");
  check(MPI_Finalize(), "end");
  lock.lock();
  closed_ = true;
  done_.notify_all();
}

std::uint64_t MpiThread::submit(const std::string& what, std::function<void(Wire&, std::uint64_t)> body) {
  if (halted_) throw std::runtime_error(what + ": collectives were given up after an error");
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++submitted_;
    control_->set_position(Control::over_mpi, number, what);
    jobs_.push_back({number, what, std::move(body)});
  }
  work_.notify_one();
  return number;
}

void MpiThread::wait(std::uint64_t number) {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return finished_ >= number; });
}

void MpiThread::quiesce(double seconds) {
  std::unique_lock lock(mutex_);
  const std::chrono::duration<double> time(seconds);
  if (!done_.wait_for(lock, time, [this] { return finished_ == submitted_; })) halted_ = true;
}

bool MpiThread::close() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  work_.notify_one();
  return done_.wait_for(lock, kFinalizeTime, [this] { return closed_; });
}

void MpiThread::post(std::function<void()> act) {
  control_->post(std::move(act));
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  work_.notify_one();
}

void MpiThread::come_to(std::uint64_t number, const std::string& what) {
  control_->set_position(Control::over_device, number, what);
}

void MpiThread::overdue(std::uint64_t number, const std::string& what, double seconds) {
  std::promise<void> called;
  post([&] {
    control_->overdue(Control::over_device, number, what, seconds);
    called.set_value();
  });
  called.get_future().wait();
}

void MpiThread::failed(int status, const std::string& line) {
  std::promise<void> never;
  post([&] { control_->end(status, line); });
  never.get_future().wait();
}

void MpiThread::before_end(std::function<void()> act) {
  control_->keep_for_end(std::move(act));
}

void MpiThread::abandon(int status, const std::string& whole_line) {
  post([this, status, whole_line] { control_->end_with(status, whole_line); });
  for (;;) ::pause();
}

}  // namespace routescope::kernels::mpi
