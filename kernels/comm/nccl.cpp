// Collectives over NCCL, on a stream of their own beside the stream that computes. A thread watches them, because a
// kernel waits for ever for a device whose rank has ended.
#include "kernels/comm/nccl.h"

#include <stdexcept>

#ifndef ROUTESCOPE_NCCL

namespace routescope::kernels {

bool nccl_built() {
  return false;
}

std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator>, Lane*, const CommunicatorOptions&) {
  throw std::runtime_error("this build has no NCCL");
}

}  // namespace routescope::kernels

#else

#include <cuda_runtime.h>
#include <nccl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/device.h"
#include "kernels/range.h"

namespace routescope::kernels {

namespace {

using Clock = std::chrono::steady_clock;

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears the error, for the next call
  throw std::runtime_error("CUDA: " + what + ": " + cudaGetErrorString(status));
}

ncclDataType_t type_of(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
  }
  throw std::invalid_argument("NCCL: unknown element type");
}

/// This machine's name and this rank's device on it. Throws std::runtime_error.
std::string take_device(const Place& place) {
  const int count = device_count();
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  // A launcher may show each process only its own device. The exchange below tells this from a shared device.
  const int chosen = count == 1 ? 0 : place.local_rank;
  if (chosen >= count) {
    throw std::runtime_error(std::string(host.data()) + ": found " + std::to_string(count) +
                             " CUDA devices, expected one for each process of a machine, of which rank " +
                             std::to_string(place.rank) + " is number " + std::to_string(place.local_rank + 1));
  }
  select_device(chosen);
  std::array<char, 32> bus{};
  check(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), chosen), "bus id");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, chosen), "device properties");
  // Slices of one device share its bus id, but not their own.
  std::string name = std::string(host.data()) + " device " + bus.data() + " ";
  for (const char byte : properties.uuid.bytes) {
    std::array<char, 3> hex{};
    std::snprintf(hex.data(), hex.size(), "%02x", static_cast<unsigned char>(byte));
    name += hex.data();
  }
  return name;
}

/// Throws the same std::runtime_error on every rank if two of them have the same device.
void check_own_devices(Communicator& host, const std::string& device) {
  std::map<std::string, int> owners;
  std::string wrong;
  const std::vector<std::string> devices = host.gather(device, "CUDA devices");
  for (int r = 0; r < static_cast<int>(devices.size()); ++r) {
    const auto [owner, first] = owners.emplace(devices[static_cast<std::size_t>(r)], r);
    if (!first && wrong.empty()) {
      wrong = "ranks " + std::to_string(owner->second) + " and " + std::to_string(r) + " share " + owner->first +
              ": expected a device for each (start fewer processes on a machine, or let each see one device)";
    }
  }
  wrong = host.broadcast(wrong, "CUDA devices");
  if (!wrong.empty()) throw std::runtime_error(wrong);
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, Lane* lane, const CommunicatorOptions& options)
      : Communicator(host->place()),
        host_(std::move(host)),
        lane_(lane),
        timeout_(options.timeout_seconds),
        exceptions_(std::uncaught_exceptions()) {
    check_own_devices(*host_, take_device(place_));
    check(cudaGetDevice(&device_), "device");
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "creating a stream");
    ncclUniqueId id{};
    std::string bytes;
    if (rank() == 0) {
      check(ncclGetUniqueId(&id), "unique id");
      bytes.assign(id.internal, sizeof id.internal);
    }
    bytes = host_->broadcast(bytes, "NCCL's unique id");
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    number_ = 1;
    if (lane_) lane_->come_to(number_, "the start of NCCL");
    check(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), "the start of NCCL");
    if (lane_) lane_->before_end([comm = comm_] { ncclCommAbort(comm); });
    watch_ = std::thread([this] { watch(); });
  }

  ~NcclCommunicator() override {
    if (std::uncaught_exceptions() > exceptions_) {
      // After an exception the other ranks are elsewhere: the host's thread answers until abandon(), and the watching
      // thread ends with the process.
      watch_.detach();
      static_cast<void>(host_.release());
      return;
    }
    host_->barrier("the end of NCCL");
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    work_.notify_one();
    watch_.join();
    if (lane_) lane_->before_end(nullptr);
    try {
      check(ncclCommFinalize(comm_), "the end of NCCL");
    } catch (const std::exception&) {
      // All work was done. The process frees the remaining memory when it ends.
    }
    ncclCommDestroy(comm_);
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    cudaStreamDestroy(stream_);
  }

  Ticket reduce_scatter(Tensor piece, Tensor whole, const Stream& stream, const std::string& what) override {
    return start("reduce-scatter", piece, whole, stream, what, [&] {
      return ncclReduceScatter(whole.data, piece.data, static_cast<std::size_t>(piece.numel()), type_of(piece), ncclSum,
                               comm_, stream_);
    });
  }

  Ticket all_gather(Tensor whole, Tensor piece, const Stream& stream, const std::string& what) override {
    return start("all-gather", piece, whole, stream, what, [&] {
      return ncclAllGather(piece.data, whole.data, static_cast<std::size_t>(piece.numel()), type_of(piece), comm_,
                           stream_);
    });
  }

  void wait(Ticket ticket, const Stream& stream) override {
    const std::lock_guard lock(mutex_);
    for (const Item& item : items_) {
      if (item.number != ticket) continue;
      check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream.handle), item.done), "waiting for " + item.what);
      return;
    }
    // The watching thread removes a collective when it has finished.
  }

  void quiesce(double seconds) override {
    std::unique_lock lock(mutex_);
    const auto until = Clock::now() + std::chrono::duration<double>(seconds);
    while (!items_.empty() && Clock::now() < until) {
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      lock.lock();
    }
    // A device that still waits for others cannot be stopped; freeing its memory waits for it.
  }

  void all_reduce(std::span<double> values, Reduction reduction, const std::string& what) override {
    host_->all_reduce(values, reduction, what);
  }
  std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
    return host_->gather(bytes, what);
  }
  std::string broadcast(const std::string& bytes, const std::string& what) override {
    return host_->broadcast(bytes, what);
  }
  Traffic traffic() const override {
    return {.bytes = bytes_, .seconds_waited = host_->traffic().seconds_waited + seconds_waited_};
  }

 private:
  /// A collective that has started, until the watching thread sees that it is done.
  struct Item {
    std::uint64_t number = 0;
    std::string what;
    cudaEvent_t ready = nullptr;  // the work before it is done
    cudaEvent_t done = nullptr;
  };

  /// NCCL without blocking: a call may be under way when it returns.
  void check(ncclResult_t status, const std::string& what) {
    const auto begin = Clock::now();
    auto since = begin;
    while (status == ncclInProgress) {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &status);
      if (asked != ncclSuccess) status = asked;
      if (const std::chrono::duration<double> waited = Clock::now() - since; lane_ && waited.count() > timeout_) {
        lane_->overdue(number_, what, waited.count());
        since = Clock::now();
      }
    }
    seconds_waited_ += std::chrono::duration<double>(Clock::now() - begin).count();
    if (status == ncclSuccess) return;
    throw std::runtime_error("NCCL: " + what + ": " + ncclGetErrorString(status) + " (" + ncclGetLastError(comm_) +
                             ")");
  }
  static void check(cudaError_t status, const std::string& what) { routescope::kernels::check(status, what); }

  template <class Call>
  Ticket start(const std::string& name, const Tensor& piece, const Tensor& whole, const Stream& stream,
               const std::string& what, const Call& call) {
    if (piece.device != Device::cuda || whole.device != Device::cuda) {
      throw std::invalid_argument(what + ": expected tensors on a CUDA device");
    }
    if (piece.dtype != whole.dtype || whole.numel() != size() * piece.numel()) {
      throw std::invalid_argument(what + ": expected tensors of one type, whole of " + std::to_string(size()) +
                                  " pieces; found " + std::to_string(whole.numel()) + " and " +
                                  std::to_string(piece.numel()) + " elements");
    }
    if (piece.numel() == 0) return 0;
    const std::string label = name + " (" + what + ")";
    const Range range(label.c_str());
    bytes_ += static_cast<std::uint64_t>(size() - 1) * piece.bytes();
    Item item{++number_, label, take_event(), take_event()};
    check(cudaEventRecord(item.ready, static_cast<cudaStream_t>(stream.handle)), label);
    check(cudaStreamWaitEvent(stream_, item.ready), label);
    check(call(), label);
    check(cudaEventRecord(item.done, stream_), label);
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
    }
    work_.notify_one();
    return number_;
  }

  cudaEvent_t take_event() {
    {
      const std::lock_guard lock(mutex_);
      if (!events_.empty()) {
        cudaEvent_t event = events_.back();
        events_.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    return event;
  }

  void watch() {
    cudaSetDevice(device_);
    std::unique_lock lock(mutex_);
    std::uint64_t watched = 0;
    bool ready = false;
    auto since = Clock::now();
    while (true) {
      work_.wait(lock, [this] { return closing_ || !items_.empty(); });
      if (items_.empty()) return;
      const Item item = items_.front();
      lock.unlock();
      if (watched != item.number) {
        watched = item.number;
        ready = false;
        since = Clock::now();
      }
      if (!ready && finished(item, item.ready)) {
        ready = true;
        since = Clock::now();
        if (lane_) lane_->come_to(item.number, item.what);
      }
      const bool done = ready && finished(item, item.done);
      if (!done) {
        ncclResult_t status = ncclSuccess;
        if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &status); asked != ncclSuccess) status = asked;
        if (status != ncclSuccess && status != ncclInProgress) {
          fail(lost_rank_status, item.what + ": " + ncclGetErrorString(status));
        }
        const std::chrono::duration<double> waited = Clock::now() - since;
        if (ready && lane_ && waited.count() > timeout_) {
          lane_->overdue(item.number, item.what, waited.count());
          since = Clock::now();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      lock.lock();
      if (done) {
        events_.push_back(item.ready);
        events_.push_back(item.done);
        items_.pop_front();
      }
    }
  }

  bool finished(const Item& item, cudaEvent_t event) {
    const cudaError_t status = cudaEventQuery(event);
    if (status == cudaErrorNotReady) return false;
    // An error of this rank, mostly of a kernel before the collective. The same command would fail again.
    if (status != cudaSuccess) {
      fail(1, "rank " + std::to_string(rank()) + ": CUDA: " + item.what + ": " + cudaGetErrorString(status));
    }
    return true;
  }

  [[noreturn]] void fail(int status, const std::string& line) {
    if (lane_) lane_->failed(status, line);
    abandon(status, line);
  }

  std::unique_ptr<Communicator> host_;
  Lane* lane_;
  double timeout_;
  int exceptions_;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
  std::uint64_t number_ = 0;  // of the last collective that was started; the start of NCCL is one
  std::uint64_t bytes_ = 0;
  double seconds_waited_ = 0;

  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<Item> items_;
  std::vector<cudaEvent_t> events_;
  bool closing_ = false;
  std::thread watch_;
};

}  // namespace

bool nccl_built() {
  return true;
}

std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host, Lane* lane,
                                                const CommunicatorOptions& options) {
  return std::make_unique<NcclCommunicator>(std::move(host), lane, options);
}

}  // namespace routescope::kernels

#endif
