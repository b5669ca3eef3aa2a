// The CUDA device as the host sees it: whether there is one, memory, copies, streams, recorded work. In a build without
// CUDA, and for CPU tensors, copies and streams still work and the rest says what is missing.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace routescope::kernels {

/// Whether this build contains the CUDA backend, and whether a device answers.
bool cuda_built();
bool cuda_available();

/// CUDA devices that this process sees.
int device_count();
/// The one that this thread uses from now on (0 without a call). Throws std::runtime_error.
void select_device(int index);

struct DeviceInfo {
  std::string name;
  int capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  std::size_t total_bytes = 0;
  std::size_t free_bytes = 0;
};
/// Of the current CUDA device. Throws std::runtime_error where there is none.
DeviceInfo device_info();

/// Zeroed device memory, aligned to 256 bytes. Throws std::runtime_error, with the number of bytes, when it cannot be
/// had.
void* cuda_allocate(std::size_t bytes);
void cuda_release(void* data) noexcept;

/// dst = src: same type and number of elements, on any devices. In order with the stream's other work. Host memory may
/// be read or changed again only after synchronize().
void copy(Tensor dst, Tensor src, const Stream& stream);
/// Waits until the stream's work is done. Throws std::runtime_error if any of it failed.
void synchronize(const Stream& stream);

/// Host memory that a CUDA device copies from and to without waiting; ordinary memory in a build without CUDA.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

/// A stream of its own, in order with the device's default stream. On the CPU it is nothing.
class OwnedStream {
 public:
  OwnedStream() = default;
  explicit OwnedStream(Device device);
  ~OwnedStream();
  OwnedStream(OwnedStream&& other) noexcept;
  OwnedStream& operator=(OwnedStream&& other) noexcept;
  void* handle() const { return handle_; }

 private:
  void* handle_ = nullptr;
};

/// Work recorded once and replayed as one CUDA graph: kernels and copies on one stream with fixed addresses.
class RecordedWork {
 public:
  RecordedWork() = default;
  /// Runs `body`, which may only put work on `stream`, recording instead of executing it. CUDA only.
  RecordedWork(const Stream& stream, const std::function<void()>& body);
  ~RecordedWork();
  RecordedWork(RecordedWork&& other) noexcept;
  RecordedWork& operator=(RecordedWork&& other) noexcept;
  explicit operator bool() const { return graph_ != nullptr; }
  void replay(const Stream& stream) const;

 private:
  void* graph_ = nullptr;
};

/// A point in a stream's work that the host can wait for. CUDA only.
class StreamEvent {
 public:
  StreamEvent();
  ~StreamEvent();
  StreamEvent(StreamEvent&& other) noexcept;
  StreamEvent& operator=(StreamEvent&&) = delete;
  void record(const Stream& stream);
  /// Until what stood in the stream at the last record() is done; at once if there was none.
  void wait() const;

 private:
  void* event_ = nullptr;
  bool recorded_ = false;
};

/// Device time between two points of a stream. CUDA only.
class StreamTimer {
 public:
  StreamTimer();
  ~StreamTimer();
  StreamTimer(const StreamTimer&) = delete;
  StreamTimer& operator=(const StreamTimer&) = delete;
  void start(const Stream& stream);
  /// Seconds since start(), after waiting for the stream.
  double stop(const Stream& stream);

 private:
  void* begin_ = nullptr;
  void* end_ = nullptr;
};

}  // namespace routescope::kernels
