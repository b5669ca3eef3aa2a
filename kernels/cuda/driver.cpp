// The CUDA runtime behind driver.h.
#include "kernels/cuda/driver.h"

#include <cuda_runtime.h>

#include <new>
#include <stdexcept>
#include <string>

namespace routescope::kernels::cuda::driver {

namespace {

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears the error, for the next call
  throw std::runtime_error("CUDA: " + what + ": " + cudaGetErrorString(status));
}

cudaStream_t stream_of(void* handle) {
  return static_cast<cudaStream_t>(handle);
}

}  // namespace

bool available() noexcept {
  return count() > 0;
}

int count() noexcept {
  int found = 0;
  if (cudaGetDeviceCount(&found) != cudaSuccess) found = 0;
  cudaGetLastError();
  return found;
}

void select(int index) {
  check(cudaSetDevice(index), "device " + std::to_string(index));
}

DeviceInfo info() {
  int device = 0;
  check(cudaGetDevice(&device), "no device");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "device properties");
  DeviceInfo out{.name = properties.name,
                 .capability = 10 * properties.major + properties.minor,
                 .multiprocessors = properties.multiProcessorCount};
  check(cudaMemGetInfo(&out.free_bytes, &out.total_bytes), "device memory");
  return out;
}

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes), "allocating " + std::to_string(bytes) + " bytes");
  check(cudaMemset(data, 0, bytes), "clearing " + std::to_string(bytes) + " bytes");
  return data;
}

void release(void* data) noexcept {
  cudaFree(data);
}

void* allocate_pinned(std::size_t bytes) {
  void* data = nullptr;
  // A build with CUDA also runs on a machine without a device. Ordinary memory serves there.
  if (!available()) {
    data = ::operator new (bytes, std::align_val_t{64});
    return data;
  }
  check(cudaMallocHost(&data, bytes), "pinning " + std::to_string(bytes) + " bytes");
  return data;
}

void release_pinned(void* data) noexcept {
  if (available())
    cudaFreeHost(data);
  else
    ::operator delete (data, std::align_val_t{64});
}

void copy(void* dst, const void* src, std::size_t bytes, void* stream) {
  check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream_of(stream)),
        "copying " + std::to_string(bytes) + " bytes");
}

void synchronize(void* stream) {
  check(cudaStreamSynchronize(stream_of(stream)), "work on a stream");
}

void* create_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream), "creating a stream");
  return stream;
}

void destroy_stream(void* stream) noexcept {
  cudaStreamDestroy(stream_of(stream));
}

void begin_recording(void* stream) {
  check(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "beginning to record a graph");
}

void* end_recording(void* stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_of(stream), &graph), "recording a graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "making a graph executable");
  return executable;
}

void replay(void* graph, void* stream) {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)), "starting a graph");
}

void destroy_graph(void* graph) noexcept {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

void* create_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "creating an event");
  return event;
}

void destroy_event(void* event) noexcept {
  cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

void record_event(void* event, void* stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(stream)), "recording an event");
}

double seconds_between(void* begin, void* end) {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(end)), "waiting for an event");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(begin), static_cast<cudaEvent_t>(end)),
        "time between events");
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace routescope::kernels::cuda::driver
