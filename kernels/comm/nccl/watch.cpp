#ifdef ROUTESCOPE_NCCL

#include "kernels/comm/nccl/watch.h"

#include <stdexcept>
#include <utility>

#include "kernels/comm/launch.h"

namespace routescope::kernels {

namespace {

constexpr std::chrono::milliseconds kLook{2};
/// What an end of the process waits for a call of NCCL that is under way, before it goes on without stopping NCCL.
constexpr std::chrono::seconds kLastCall{1};

}  // namespace

void check_cuda(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears the error, for the next call
  throw std::runtime_error("CUDA: " + what + ": " + cudaGetErrorString(status));
}

/// Shared by both threads, and alive as long as either.
struct NcclWatch::State {
  /// A call under way.
  struct Call {
    std::uint64_t number = 0;
    std::string what;
    Clock::time_point since;
  };

  Lane* lane = nullptr;
  int rank = 0, device = 0;
  double timeout = 0;

  std::timed_mutex nccl;  // whoever holds it may use `comm`
  ncclComm_t comm = nullptr;

  std::mutex mutex;  // of what follows
  std::condition_variable work;
  std::deque<Item> items;
  std::vector<cudaEvent_t> events;
  std::optional<Call> call;
  bool closing = false;

  bool overdue(Clock::time_point since) const {
    return lane && std::chrono::duration<double>(Clock::now() - since).count() > timeout;
  }
  void report(std::uint64_t number, const std::string& what, Clock::time_point since) const {
    lane->overdue(number, what, std::chrono::duration<double>(Clock::now() - since).count());
  }

  [[noreturn]] void fail(int status, const std::string& line) const {
    if (lane) lane->failed(status, line);
    routescope::kernels::abandon(status, line);
  }

  bool finished(const Item& item, cudaEvent_t event) const {
    const cudaError_t status = cudaEventQuery(event);
    if (status == cudaErrorNotReady) return false;
    // An error of this rank, mostly of a kernel before the collective. The same command would fail again.
    if (status != cudaSuccess)
      fail(1, "rank " + std::to_string(rank) + ": CUDA: " + item.what + ": " + cudaGetErrorString(status));
    return true;
  }

  /// Unless a call is under way, which will tell of an error itself.
  void look_for_errors(const Item& item) {
    ncclResult_t status = ncclSuccess;
    {
      const std::unique_lock only(nccl, std::try_to_lock);
      if (!only || !comm) return;
      if (const ncclResult_t asked = ncclCommGetAsyncError(comm, &status); asked != ncclSuccess) status = asked;
    }
    if (status != ncclSuccess && status != ncclInProgress)
      fail(lost_rank_status, item.what + ": " + ncclGetErrorString(status));
  }

  /// Ends what the device still does. Nothing may use NCCL any more, so its mutex stays locked.
  void stop() {
    std::unique_lock only(nccl, kLastCall);
    if (!only) return;  // the process ends with the call under way
    if (comm) ncclCommAbort(comm);
    only.release();
  }
};

NcclWatch::NcclWatch(Lane* lane, int rank, int device, double timeout_seconds) : state_(std::make_shared<State>()) {
  state_->lane = lane;
  state_->rank = rank;
  state_->device = device;
  state_->timeout = timeout_seconds;
  if (lane) lane->before_end([state = state_] { state->stop(); });
  thread_ = std::thread([state = state_] { watch(state); });
}

NcclWatch::~NcclWatch() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(state_->mutex);
      state_->closing = true;
    }
    state_->work.notify_one();
    thread_.join();
    if (state_->lane) state_->lane->before_end(nullptr);
    for (cudaEvent_t event : state_->events) cudaEventDestroy(event);
  }
}

void NcclWatch::abandon() {
  thread_.detach();
}

void NcclWatch::call(std::uint64_t number, const std::string& what,
                     const std::function<ncclResult_t(ncclComm_t&)>& act) {
  const auto begin = Clock::now();
  const std::lock_guard only(state_->nccl);
  {
    const std::lock_guard lock(state_->mutex);
    state_->call = State::Call{number, what, Clock::now()};
  }
  state_->work.notify_one();
  const ncclResult_t status = act(state_->comm);
  {
    const std::lock_guard lock(state_->mutex);
    state_->call.reset();
  }
  seconds_in_calls_ += std::chrono::duration<double>(Clock::now() - begin).count();
  if (status == ncclSuccess) return;
  throw std::runtime_error("NCCL: " + what + ": " + ncclGetErrorString(status) + " (" + ncclGetLastError(state_->comm) +
                           ")");
}

void NcclWatch::add(Item item) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->items.push_back(std::move(item));
  }
  state_->work.notify_one();
}

cudaEvent_t NcclWatch::done_event(std::uint64_t number) {
  const std::lock_guard lock(state_->mutex);
  for (const Item& item : state_->items)
    if (item.number == number) return item.done;
  return nullptr;
}

bool NcclWatch::idle() {
  const std::lock_guard lock(state_->mutex);
  return state_->items.empty();
}

void NcclWatch::quiesce(double seconds) {
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  while (!idle() && Clock::now() < until) std::this_thread::sleep_for(kLook);
}

cudaEvent_t NcclWatch::take_event() {
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->events.empty()) {
      cudaEvent_t event = state_->events.back();
      state_->events.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  return event;
}

void NcclWatch::watch(const std::shared_ptr<State>& shared) {
  State& state = *shared;
  cudaSetDevice(state.device);
  std::unique_lock lock(state.mutex);
  std::uint64_t watched = 0;
  bool ready = false;
  Clock::time_point since = Clock::now();
  Clock::time_point reported{};  // the start of a call that was overdue already, and when
  while (true) {
    state.work.wait(lock, [&] { return state.closing || !state.items.empty() || state.call; });
    if (state.items.empty() && !state.call) return;
    // A call waits for ranks in its own turn: those of earlier collectives are watched first.
    if (state.items.empty()) {
      const State::Call call = *state.call;
      lock.unlock();
      const Clock::time_point from = std::max(call.since, reported);
      if (state.overdue(from)) {
        state.lane->come_to(call.number, call.what);
        state.report(call.number, call.what, from);
        reported = Clock::now();
      }
      std::this_thread::sleep_for(kLook);
      lock.lock();
      continue;
    }
    const Item item = state.items.front();
    lock.unlock();
    if (watched != item.number) {
      watched = item.number;
      ready = false;
      since = Clock::now();
    }
    if (!ready && state.finished(item, item.ready)) {
      ready = true;
      since = Clock::now();
      if (state.lane) state.lane->come_to(item.number, item.what);
    }
    const bool done = ready && state.finished(item, item.done);
    if (!done) {
      state.look_for_errors(item);
      if (ready && state.overdue(since)) {
        state.report(item.number, item.what, since);
        since = Clock::now();
      }
      std::this_thread::sleep_for(kLook);
    }
    lock.lock();
    if (done) {
      state.events.push_back(item.ready);
      state.events.push_back(item.done);
      state.items.pop_front();
    }
  }
}

}  // namespace routescope::kernels

#endif
