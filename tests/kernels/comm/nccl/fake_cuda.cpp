#include "tests/kernels/comm/nccl/fake_cuda.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace routescope::testing {

namespace {

constexpr int most_devices = 8;
constexpr std::size_t device_bytes = std::size_t{1} << 33;

std::atomic<int> devices = 1;
thread_local int selected = 0;
std::array<std::atomic<std::size_t>, most_devices> bytes_in_use;
std::array<std::atomic<bool>, most_devices> broken;

class Worker {
 public:
  Worker() : thread_([this] { run(); }) {}
  ~Worker() {
    enqueue(nullptr);
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  /// Null ends the thread.
  void enqueue(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      work_.push_back(std::move(work));
    }
    changed_.notify_all();
  }
  void synchronize() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return work_.empty(); });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !work_.empty(); });
      const std::function<void()> work = work_.front();
      if (!work) return;
      lock.unlock();
      work();
      lock.lock();
      work_.pop_front();
      changed_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  std::thread thread_;
};

struct Event {
  int device = selected;
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t recorded = 0, passed = 0;
};

/// The default stream of a thread's device. It is never destroyed: its thread ends with the process.
Worker& worker_of(cudaStream_t stream) {
  static auto* const defaults = new std::array<Worker, most_devices>;
  return stream ? *reinterpret_cast<Worker*>(stream) : (*defaults)[static_cast<std::size_t>(selected)];
}
/// Work on a stream may outlive the event's handle.
std::mutex events_mutex;
std::map<cudaEvent_t, std::shared_ptr<Event>>& events() {
  static auto* const all = new std::map<cudaEvent_t, std::shared_ptr<Event>>;
  return *all;
}
std::shared_ptr<Event> event_of(cudaEvent_t handle) {
  const std::lock_guard lock(events_mutex);
  const auto found = events().find(handle);
  if (found == events().end()) {
    std::fputs("fake CUDA: an event that does not exist\n", stderr);
    std::abort();
  }
  return found->second;
}

std::mutex sizes_mutex;
std::map<void*, std::pair<std::size_t, int>>& sizes() {
  static auto* const all = new std::map<void*, std::pair<std::size_t, int>>;
  return *all;
}

std::size_t index(int device) {
  return static_cast<std::size_t>(device);
}

}  // namespace

void set_fake_devices(int count) {
  devices = count;
}

void enqueue_fake(cudaStream_t stream, std::function<void()> work) {
  worker_of(stream).enqueue(std::move(work));
}

void take_fake_memory(std::size_t bytes) {
  bytes_in_use[index(selected)] += bytes;
}

void break_fake_device(int device) {
  broken[index(device)] = true;
}

}  // namespace routescope::testing

using namespace routescope::testing;  // NOLINT(google-build-using-namespace)

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  selected = device;
  return device < devices ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = selected;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  std::snprintf(id, static_cast<std::size_t>(length), "0000:%02x:00.0", device);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "fake device %d", device);
  properties->uuid.bytes[0] = static_cast<char>(device);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = device_bytes;
  *free = device_bytes - bytes_in_use[index(selected)];
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "another error";
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  *data = std::malloc(bytes + 1);
  const std::lock_guard lock(sizes_mutex);
  sizes()[*data] = {bytes, selected};
  bytes_in_use[index(selected)] += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (!data) return cudaSuccess;
  const std::lock_guard lock(sizes_mutex);
  const auto found = sizes().find(data);
  bytes_in_use[index(found->second.second)] -= found->second.first;
  sizes().erase(found);
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  *data = std::malloc(bytes + 1);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* dst, const void* src, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  enqueue_fake(stream, [=] { std::memcpy(dst, src, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = reinterpret_cast<cudaStream_t>(new Worker);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<Worker*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  worker_of(stream).synchronize();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned) {
  const std::shared_ptr<Event> event = event_of(handle);
  std::uint64_t until = 0;
  {
    const std::lock_guard lock(event->mutex);
    until = event->recorded;
  }
  enqueue_fake(stream, [event, until] {
    std::unique_lock lock(event->mutex);
    event->changed.wait(lock, [&] { return event->passed >= until; });
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
  auto event = std::make_shared<Event>();
  *handle = reinterpret_cast<cudaEvent_t>(event.get());
  const std::lock_guard lock(events_mutex);
  events()[*handle] = std::move(event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* handle) {
  return cudaEventCreateWithFlags(handle, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  const std::lock_guard lock(events_mutex);
  events().erase(handle);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  const std::shared_ptr<Event> event = event_of(handle);
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(event->mutex);
    number = ++event->recorded;
  }
  enqueue_fake(stream, [event, number] {
    const std::lock_guard lock(event->mutex);
    event->passed = std::max(event->passed, number);
    event->changed.notify_all();
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const std::shared_ptr<Event> event = event_of(handle);
  if (broken[index(event->device)]) return cudaErrorIllegalAddress;
  const std::lock_guard lock(event->mutex);
  return event->passed >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const std::shared_ptr<Event> event = event_of(handle);
  std::unique_lock lock(event->mutex);
  event->changed.wait(lock, [&] { return event->passed >= event->recorded; });
  return cudaSuccess;
}

// Nothing here records graphs or measures time.
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return cudaErrorNotSupported;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  return cudaErrorNotSupported;
}

}  // extern "C"
