// Device memory, copies and streams (device.h) over the CUDA driver where this build has one.
#include "kernels/device.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#ifdef ROUTESCOPE_CUDA
#include "kernels/cuda/driver.h"
#endif

namespace routescope::kernels {

#ifdef ROUTESCOPE_CUDA
namespace driver = cuda::driver;
#else
namespace {
[[noreturn]] void no_cuda() {
  throw std::runtime_error("this build has no CUDA backend: use the CPU");
}
/// Replaces kernels/cuda/driver.h in a build without CUDA.
namespace driver {
bool available() {
  return false;
}
int count() {
  return 0;
}
void select(int) {
  no_cuda();
}
DeviceInfo info() {
  no_cuda();
}
void* allocate(std::size_t) {
  no_cuda();
}
void release(void*) {}
void* allocate_pinned(std::size_t bytes) {
  void* data = std::malloc(bytes);
  if (!data) throw std::bad_alloc();
  return data;
}
void release_pinned(void* data) {
  std::free(data);
}
void copy(void*, const void*, std::size_t, void*) {
  no_cuda();
}
void synchronize(void*) {
  no_cuda();
}
void* create_stream() {
  no_cuda();
}
void destroy_stream(void*) {}
void begin_recording(void*) {
  no_cuda();
}
void* end_recording(void*) {
  no_cuda();
}
void replay(void*, void*) {
  no_cuda();
}
void destroy_graph(void*) {}
void* create_event() {
  no_cuda();
}
void destroy_event(void*) {}
void record_event(void*, void*) {
  no_cuda();
}
double seconds_between(void*, void*) {
  no_cuda();
}
}  // namespace driver
}  // namespace
#endif

bool cuda_built() {
#ifdef ROUTESCOPE_CUDA
  return true;
#else
  return false;
#endif
}

bool cuda_available() {
  return driver::available();
}

int device_count() {
  return driver::count();
}

void select_device(int index) {
  driver::select(index);
}

DeviceInfo device_info() {
  return driver::info();
}

void* cuda_allocate(std::size_t bytes) {
  return driver::allocate(bytes);
}

void cuda_release(void* data) noexcept {
  driver::release(data);
}

void copy(Tensor dst, Tensor src, const Stream& stream) {
  if (dst.dtype != src.dtype || dst.numel() != src.numel())
    throw std::invalid_argument("copy: expected tensors of one type and size");
  if (dst.numel() == 0) return;
  if (dst.device == Device::cpu && src.device == Device::cpu)
    std::memmove(dst.data, src.data, dst.bytes());
  else
    driver::copy(dst.data, src.data, dst.bytes(), stream.handle);
}

void synchronize(const Stream& stream) {
  if (stream.device == Device::cuda) driver::synchronize(stream.handle);
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : data_(driver::allocate_pinned(bytes)) {}
PinnedBuffer::~PinnedBuffer() {
  if (data_) driver::release_pinned(data_);
}
PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}

OwnedStream::OwnedStream(Device device) : handle_(device == Device::cuda ? driver::create_stream() : nullptr) {}
OwnedStream::~OwnedStream() {
  if (handle_) driver::destroy_stream(handle_);
}
OwnedStream::OwnedStream(OwnedStream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
OwnedStream& OwnedStream::operator=(OwnedStream&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

RecordedWork::RecordedWork(const Stream& stream, const std::function<void()>& body) {
  driver::begin_recording(stream.handle);
  try {
    body();
  } catch (...) {
    // The recording must end in any case; the first error is the one that is reported.
    try {
      driver::destroy_graph(driver::end_recording(stream.handle));
    } catch (...) {
    }
    throw;
  }
  graph_ = driver::end_recording(stream.handle);
}
RecordedWork::~RecordedWork() {
  if (graph_) driver::destroy_graph(graph_);
}
RecordedWork::RecordedWork(RecordedWork&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
RecordedWork& RecordedWork::operator=(RecordedWork&& other) noexcept {
  std::swap(graph_, other.graph_);
  return *this;
}
void RecordedWork::replay(const Stream& stream) const {
  driver::replay(graph_, stream.handle);
}

StreamEvent::StreamEvent() : event_(driver::create_event()) {}
StreamEvent::~StreamEvent() {
  if (event_) driver::destroy_event(event_);
}
StreamEvent::StreamEvent(StreamEvent&& other) noexcept
    : event_(std::exchange(other.event_, nullptr)), recorded_(other.recorded_) {}
void StreamEvent::record(const Stream& stream) {
  driver::record_event(event_, stream.handle);
  recorded_ = true;
}
void StreamEvent::wait() const {
  if (recorded_) driver::seconds_between(event_, event_);
}

StreamTimer::StreamTimer() : begin_(driver::create_event()), end_(driver::create_event()) {}
StreamTimer::~StreamTimer() {
  driver::destroy_event(begin_);
  driver::destroy_event(end_);
}
void StreamTimer::start(const Stream& stream) {
  driver::record_event(begin_, stream.handle);
}
double StreamTimer::stop(const Stream& stream) {
  driver::record_event(end_, stream.handle);
  return driver::seconds_between(begin_, end_);
}

}  // namespace routescope::kernels
