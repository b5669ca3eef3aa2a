// Collectives over NCCL, on a stream of their own beside the stream that computes, watched by a thread (watch.h).
#include "kernels/comm/nccl/nccl.h"

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
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <map>

#include "kernels/comm/nccl/watch.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/range.h"

namespace routescope::kernels {

namespace {

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
  check_cuda(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), chosen), "bus id");
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, chosen), "device properties");
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
      : Communicator(host->place()), host_(std::move(host)), exceptions_(std::uncaught_exceptions()) {
    check_own_devices(*host_, take_device(place_));
    int device = 0, least = 0, greatest = 0;
    check_cuda(cudaGetDevice(&device), "device");
    check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
    check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "creating a stream");
    watch_ = std::make_unique<NcclWatch>(lane, rank(), device, options.timeout_seconds);
    try {
      start_nccl(lane);
    } catch (const std::exception&) {
      watch_->abandon();
      throw;
    }
  }

  ~NcclCommunicator() override {
    if (std::uncaught_exceptions() > exceptions_) {
      // After an exception the other ranks are elsewhere: the host's thread answers until abandon(), and the watching
      // thread ends with the process.
      watch_->abandon();
      static_cast<void>(host_.release());
      return;
    }
    try {
      host_->barrier("the end of NCCL");
      watch_->quiesce(std::numeric_limits<double>::infinity());
      watch_->call(++number_, "the end of NCCL", [](ncclComm_t& comm) {
        const ncclResult_t status = ncclCommFinalize(comm);
        ncclCommDestroy(comm);
        comm = nullptr;
        return status;
      });
    } catch (const std::exception&) {
      // All work was done. The process frees the remaining memory when it ends.
    }
    watch_.reset();
    cudaStreamDestroy(stream_);
  }

  Ticket reduce_scatter(Tensor piece, Tensor whole, const Stream& stream, const std::string& what) override {
    return start("reduce-scatter", piece, whole, stream, what, [&](ncclComm_t comm) {
      return ncclReduceScatter(whole.data, piece.data, static_cast<std::size_t>(piece.numel()), type_of(piece), ncclSum,
                               comm, stream_);
    });
  }

  Ticket all_gather(Tensor whole, Tensor piece, const Stream& stream, const std::string& what) override {
    return start("all-gather", piece, whole, stream, what, [&](ncclComm_t comm) {
      return ncclAllGather(piece.data, whole.data, static_cast<std::size_t>(piece.numel()), type_of(piece), comm,
                           stream_);
    });
  }

  void wait(Ticket ticket, const Stream& stream) override {
    // The watching thread forgets a collective when it has finished. Its events are used again only by this thread.
    if (cudaEvent_t done = watch_->done_event(ticket))
      check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream.handle), done), "waiting for a collective");
  }

  /// A device that still waits for others then cannot be stopped; freeing its memory waits for it.
  void quiesce(double seconds) override { watch_->quiesce(seconds); }

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
    return {.bytes = bytes_, .seconds_waited = host_->traffic().seconds_waited + watch_->seconds_in_calls()};
  }

 private:
  void start_nccl(Lane* lane) {
    ncclUniqueId id{};
    std::string bytes;
    if (rank() == 0) {
      if (const ncclResult_t status = ncclGetUniqueId(&id); status != ncclSuccess)
        throw std::runtime_error(std::string("NCCL: unique id: ") + ncclGetErrorString(status));
      bytes.assign(id.internal, sizeof id.internal);
    }
    bytes = host_->broadcast(bytes, "NCCL's unique id");
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    number_ = 1;
    if (lane) lane->come_to(number_, "the start of NCCL");
    watch_->call(number_, "the start of NCCL",
                 [&](ncclComm_t& comm) { return ncclCommInitRankConfig(&comm, size(), id, rank(), &config); });
    take_memory();
  }

  /// NCCL connects ranks, and takes memory for it, when a collective first needs it. Collectives of a small and a large
  /// size let it do so now, before anybody asks how much memory is free.
  void take_memory() {
    constexpr std::int64_t large = std::int64_t{1} << 18;
    const OwnedTensor whole(DType::f32, Device::cuda, {size() * large});
    const Stream stream{.device = Device::cuda, .handle = stream_};
    for (const std::int64_t count : {std::int64_t{1}, large}) {
      const Tensor all = whole.tensor.slice(0, {size() * count}), piece = all.slice(rank() * count, {count});
      reduce_scatter(piece, all, stream, "the start of NCCL");
      all_gather(all, piece, stream, "the start of NCCL");
    }
    watch_->quiesce(std::numeric_limits<double>::infinity());  // or the watching thread ends the process
    bytes_ = 0;
  }

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
    NcclWatch::Item item{++number_, label, watch_->take_event(), watch_->take_event()};
    check_cuda(cudaEventRecord(item.ready, static_cast<cudaStream_t>(stream.handle)), label);
    check_cuda(cudaStreamWaitEvent(stream_, item.ready), label);
    watch_->call(item.number, label, [&](ncclComm_t& comm) { return call(comm); });
    check_cuda(cudaEventRecord(item.done, stream_), label);
    watch_->add(std::move(item));
    return number_;
  }

  std::unique_ptr<Communicator> host_;
  int exceptions_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<NcclWatch> watch_;
  std::uint64_t number_ = 0;  // of the last collective that was started; the start of NCCL is one
  std::uint64_t bytes_ = 0;
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
