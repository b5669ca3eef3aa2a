#include "kernels/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "kernels/device.h"

namespace routescope::kernels {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t round_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// The address of a planning arena's tensors: not null, aligned, and in no page that a program owns.
std::byte* planning_address() {
  return reinterpret_cast<std::byte*>(kAlignment);
}

}  // namespace

Buffer::Buffer(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  if (device == Device::cuda) {
    data_ = cuda_allocate(bytes);
    return;
  }
  data_ = std::aligned_alloc(kAlignment, round_up(bytes));
  if (!data_) throw std::bad_alloc();
  // The threads that will use the pages touch them first, so that they lie in the right memory node.
  auto* first = static_cast<std::byte*>(data_);
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const std::size_t pieces = (bytes + kPiece - 1) / kPiece;
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (std::size_t i = 0; i < pieces; ++i) std::memset(first + i * kPiece, 0, std::min(kPiece, bytes - i * kPiece));
}

Buffer::~Buffer() {
  release();
}

void Buffer::release() {
  if (device_ == Device::cuda) {
    if (data_) cuda_release(data_);
  } else {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), device_(other.device_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    device_ = other.device_;
  }
  return *this;
}

Arena::Arena(Device device) : device_(device), planning_(true) {}

Arena::Arena(Device device, std::size_t bytes) : device_(device), planning_(false), buffer_(bytes, device) {}

void Arena::begin_part(std::string name) {
  parts_.push_back({std::move(name), 0});
}

Tensor Arena::take(DType dtype, std::initializer_list<std::int64_t> shape) {
  Tensor out(planning_address(), dtype, device_, shape);
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent < 0; }))
    throw std::invalid_argument("arena: a tensor cannot have a negative extent");
  const std::size_t bytes = round_up(out.bytes());
  if (!planning_) {
    if (bytes > buffer_.bytes() - used_)
      throw std::logic_error("arena: " + std::to_string(bytes) + " bytes asked, " +
                             std::to_string(buffer_.bytes() - used_) + " of " + std::to_string(buffer_.bytes()) +
                             " left");
    // An empty tensor is also a defined one.
    if (buffer_.data()) out.data = static_cast<std::byte*>(buffer_.data()) + used_;
  }
  if (parts_.empty()) begin_part("unnamed");
  used_ += bytes;
  parts_.back().bytes += bytes;
  return out;
}

OwnedTensor::OwnedTensor(DType dtype, Device device, std::initializer_list<std::int64_t> shape)
    : tensor(nullptr, dtype, device, shape) {
  buffer = Buffer(std::max<std::size_t>(tensor.bytes(), 1), device);
  tensor.data = buffer.data();
}

}  // namespace routescope::kernels
