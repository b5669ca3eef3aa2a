// The host's side of the emulated device (kernels/cuda/driver.h). Streams run their work at once; what CUDA refuses
// while a stream records is refused here too.
#include "kernels/cuda/driver.h"

#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/emulator/device_memory.h"
#include "tests/simt/emulator/pinned.h"
#include "tests/simt/emulator/streams.h"

namespace simt {

namespace {

using Work = std::vector<std::function<void()>>;

struct EmulatedStream {
  bool recording = false;
  std::string illegal;  // what was done during the recording that spoils it
  Work recorded;
};

struct Graph {
  Work work;
};

struct Event {
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  void* stream = nullptr;
  std::uint64_t moment = 0;
};

struct Handles {
  std::mutex mutex;
  std::set<void*> streams, graphs, events;
  EmulatedStream* recording = nullptr;
};
Handles& handles() {
  static auto* const all = new Handles;
  return *all;
}

template <class T>
void* keep(std::set<void*>& kind, std::unique_ptr<T> made) {
  const std::lock_guard lock(handles().mutex);
  kind.insert(made.get());
  return made.release();
}
template <class T>
void drop(std::set<void*>& kind, void* handle) {
  const std::lock_guard lock(handles().mutex);
  if (kind.erase(handle) == 1) delete static_cast<T*>(handle);
}
template <class T>
T& known(std::set<void*>& kind, void* handle, const char* what) {
  const std::lock_guard lock(handles().mutex);
  if (!kind.contains(handle)) throw std::runtime_error(std::string("CUDA: ") + what + ": invalid resource handle");
  return *static_cast<T*>(handle);
}

EmulatedStream* stream_of(void* handle, const char* what) {
  return handle ? &known<EmulatedStream>(handles().streams, handle, what) : nullptr;
}

/// Refuses what cannot be done while any stream records, which spoils the recording, as it does on the device.
void refuse_while_recording(const char* what) {
  EmulatedStream* recording = handles().recording;
  if (!recording) return;
  recording->illegal = what;
  throw std::runtime_error(std::string("CUDA: ") + what + ": operation not permitted when stream is capturing");
}

}  // namespace

void enqueue(void* handle, const char* what, std::function<void()> work) {
  EmulatedStream* stream = stream_of(handle, what);
  // The default stream waits for all others, which a stream that records cannot allow.
  if (!stream) refuse_while_recording(what);
  if (stream && stream->recording)
    stream->recorded.push_back(std::move(work));
  else
    work();
}

}  // namespace simt

namespace routescope::kernels::cuda::driver {

using simt::handles;

bool available() noexcept {
  return true;
}

int count() noexcept {
  return 1;
}

void select(int index) {
  if (index != 0) throw std::runtime_error("CUDA: device " + std::to_string(index) + ": the emulation has one");
}

DeviceInfo info() {
  return {.name = "emulated device",
          .capability = 90,
          .multiprocessors = 132,
          .total_bytes = simt::kDeviceBytes,
          .free_bytes = simt::kDeviceBytes - simt::device_bytes_in_use()};
}

void* allocate(std::size_t bytes) {
  simt::refuse_while_recording("allocating memory");
  return simt::device_allocate(bytes);
}

void release(void* data) noexcept {
  if (simt::EmulatedStream* recording = handles().recording) recording->illegal = "releasing memory";
  simt::device_release(data);
}

void* allocate_pinned(std::size_t bytes) {
  simt::refuse_while_recording("pinning memory");
  return simt::pinned_allocate(bytes);
}

void release_pinned(void* data) noexcept {
  simt::pinned_release(data);
}

void copy(void* dst, const void* src, std::size_t bytes, void* stream) {
  const bool to_device = simt::on_device(dst, bytes, "copying to device memory");
  const bool from_device = simt::on_device(src, bytes, "copying from device memory");
  simt::enqueue(stream, "copying", [=] {
    const simt::DeviceWorks open;
    if (to_device && simt::is_pinned(src)) {
      simt::copy_from_pinned(dst, src, bytes, stream);
    } else if (from_device && simt::is_pinned(dst)) {
      simt::copy_to_pinned(dst, src, bytes, stream);
    } else {
      // To ordinary host memory: done when this returns, and with it all that the stream was given before.
      if (from_device && !to_device) simt::wait_for_pinned(stream, simt::pinned_moment());
      std::memmove(dst, src, bytes);
    }
  });
}

void synchronize(void* stream) {
  const simt::EmulatedStream* emulated = simt::stream_of(stream, "work on a stream");
  if (!emulated || emulated->recording) simt::refuse_while_recording("waiting for a stream");
  simt::wait_for_pinned(stream, simt::pinned_moment());
}

void* create_stream() {
  return simt::keep(handles().streams, std::make_unique<simt::EmulatedStream>());
}

void destroy_stream(void* stream) noexcept {
  if (!stream) return;
  if (handles().recording == stream) handles().recording = nullptr;
  simt::drop<simt::EmulatedStream>(handles().streams, stream);
}

void begin_recording(void* stream) {
  simt::EmulatedStream* emulated = simt::stream_of(stream, "beginning to record a graph");
  if (!emulated)
    throw std::runtime_error(
        "CUDA: beginning to record a graph: operation not permitted on the default (legacy) stream");
  if (handles().recording) throw std::runtime_error("CUDA: beginning to record a graph: a stream is capturing already");
  *emulated = {.recording = true, .illegal = {}, .recorded = {}};
  handles().recording = emulated;
}

void* end_recording(void* stream) {
  simt::EmulatedStream* emulated = simt::stream_of(stream, "recording a graph");
  if (!emulated || !emulated->recording)
    throw std::runtime_error("CUDA: recording a graph: the stream is not capturing");
  handles().recording = nullptr;
  simt::EmulatedStream ended = std::exchange(*emulated, {});
  if (!ended.illegal.empty())
    throw std::runtime_error("CUDA: recording a graph: the capture failed due to a previous error (" + ended.illegal +
                             ")");
  return simt::keep(handles().graphs, std::make_unique<simt::Graph>(simt::Graph{std::move(ended.recorded)}));
}

void replay(void* graph, void* stream) {
  const simt::Graph& recorded = simt::known<simt::Graph>(handles().graphs, graph, "starting a graph");
  simt::enqueue(stream, "starting a graph", [work = recorded.work] {
    for (const auto& each : work) each();
  });
}

void destroy_graph(void* graph) noexcept {
  simt::drop<simt::Graph>(handles().graphs, graph);
}

void* create_event() {
  return simt::keep(handles().events, std::make_unique<simt::Event>());
}

void destroy_event(void* event) noexcept {
  simt::drop<simt::Event>(handles().events, event);
}

void record_event(void* event, void* stream) {
  const simt::EmulatedStream* emulated = simt::stream_of(stream, "recording an event");
  if (!emulated || emulated->recording) simt::refuse_while_recording("recording an event");
  simt::known<simt::Event>(handles().events, event, "recording an event") = {true, std::chrono::steady_clock::now(),
                                                                             stream, simt::pinned_moment()};
}

double seconds_between(void* begin, void* end) {
  const auto& from = simt::known<simt::Event>(handles().events, begin, "time between events");
  const auto& to = simt::known<simt::Event>(handles().events, end, "time between events");
  if (!from.recorded || !to.recorded)
    throw std::runtime_error("CUDA: time between events: an event was never recorded");
  simt::wait_for_pinned(to.stream, to.moment);
  return std::chrono::duration<double>(to.time - from.time).count();
}

}  // namespace routescope::kernels::cuda::driver
