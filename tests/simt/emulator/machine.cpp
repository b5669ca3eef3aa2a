// The scheduler of the emulation (machine.h).
//
// A thread runs until it has to wait; then the next ready thread is chosen and the fibers are switched directly. A
// thread that leaves gives its fiber to the next one that has not started, so that a kernel without barriers runs on
// one fiber.
#include "tests/simt/emulator/machine.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "tests/simt/emulator/device_memory.h"
#include "tests/simt/emulator/streams.h"

uint3 threadIdx{};
uint3 blockIdx{};
dim3 blockDim;
dim3 gridDim;

namespace simt {

namespace {

constexpr std::uint64_t kDefaultSeed = 20240607;
constexpr std::size_t kSharedLimit = 232448;  // bytes a block may ask for on compute capability 9.0
constexpr std::size_t kRedZone = 4096;
constexpr int kMostThreads = 1024;

std::uint64_t first_seed() {
  const char* text = std::getenv("ROUTESCOPE_SIMT_SEED");
  return text && *text ? std::strtoull(text, nullptr, 10) : kDefaultSeed;
}

/// The block's shared memory between two red zones.
std::byte* shared_base() {
  static std::byte* const base = [] {
    void* pages =
        mmap(nullptr, kSharedLimit + 2 * kRedZone, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::runtime_error("emulated device: no shared memory");
    __asan_poison_memory_region(pages, kSharedLimit + 2 * kRedZone);
    return static_cast<std::byte*>(pages) + kRedZone;
  }();
  return base;
}

std::string dim_text(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

void tell_where_it_died() {
  const Machine& machine = Machine::instance();
  const std::string place = machine.place();
  if (!place.empty())
    std::fprintf(stderr, "emulated device: in %s, thread %d; ROUTESCOPE_SIMT_SEED=%llu\n", place.c_str(),
                 machine.current(), static_cast<unsigned long long>(machine.seed()));
}

}  // namespace

std::string text_of(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string hexadecimal(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

Machine& Machine::make() {
  static Machine machine;
  made_ = &machine;
  return machine;
}

Machine::Machine() : seed_(first_seed()), random_(seed_) {
  __sanitizer_set_death_callback(tell_where_it_died);
}

Machine::~Machine() {
  closing_ = true;
  for (const auto& seat : seats_) host_.switch_to(seat->fiber);
}

void Machine::set_seed(std::uint64_t seed) {
  seed_ = seed;
  random_ = Random(seed);
}

std::string Machine::place() const {
  if (!kernel_) return {};
  return "kernel " + std::string(kernel_) + ", block " + dim_text(blockIdx.x, blockIdx.y, blockIdx.z);
}

// ---- a launch -------------------------------------------------------------------------------------------------------

void Machine::run(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
                  const std::function<void()>& body) {
  const auto refuse = [kernel](const std::string& why) {
    throw std::runtime_error("CUDA: kernel " + std::string(kernel) + ": " + why);
  };
  if (kernel_) refuse("started from inside kernel " + std::string(kernel_));
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.x > 1024 || block.y > 1024 || block.z > 64)
    refuse("invalid configuration argument (block " + dim_text(block.x, block.y, block.z) + ")");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 0xffffu || grid.z > 0xffffu)
    refuse("invalid configuration argument (grid " + dim_text(grid.x, grid.y, grid.z) + ")");
  if (shared_bytes > kSharedLimit)
    refuse("invalid argument (" + std::to_string(shared_bytes) + " bytes of shared memory)");

  const DeviceWorks open;
  kernel_ = kernel;
  block_ = block;
  shared_bytes_ = shared_bytes;
  body_ = &body;
  blockDim = block;
  gridDim = grid;
  block_threads_ = static_cast<int>(threads);
  threads_.resize(static_cast<std::size_t>(block_threads_));
  warps_.resize(static_cast<std::size_t>((block_threads_ + kWarp - 1) / kWarp));
  error_.reset();

  std::vector<std::uint64_t> blocks(std::uint64_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), std::uint64_t{0});
  for (std::size_t i = blocks.size(); i > 1; --i)
    std::swap(blocks[i - 1], blocks[random_.below(static_cast<std::uint32_t>(i))]);
  for (const std::uint64_t b : blocks) {
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(body);
    if (error_) break;
  }
  __asan_poison_memory_region(shared_base(), kSharedLimit);
  kernel_ = nullptr;
  body_ = nullptr;
  if (error_) throw std::runtime_error(*error_ + " (seed " + std::to_string(seed_) + ")");
}

void Machine::prepare_shared_memory() {
  __asan_unpoison_memory_region(shared_base(), shared_bytes_);
  // NaN in every type of floating-point number, -1 in every integer.
  std::memset(shared_base(), 0xff, shared_bytes_);
  // The mark is exact where it begins inside 8 bytes.
  __asan_poison_memory_region(shared_base() + shared_bytes_, kSharedLimit + kRedZone - shared_bytes_);
}

void Machine::run_block(const std::function<void()>&) {
  prepare_shared_memory();
  order_.begin(random_, block_threads_);
  for (int t = 0; t < block_threads_; ++t) {
    EmulatedThread& thread = threads_[static_cast<std::size_t>(t)];
    thread.state = EmulatedThread::State::unstarted;
    thread.seat = nullptr;
    thread.shown = nullptr;
    thread.copies.clear();
    thread.open_group = 0;
    order_.add(t);
  }
  for (Warp& warp : warps_) warp.groups.clear();
  left_ = 0;
  at_barrier_ = 0;

  const int first = order_.take(random_);
  Seat& seat = free_seat();
  seat.thread = first;
  seat_ = &seat;
  host_.switch_to(seat.fiber);
  // Back: all have left, or one failed, or none can go on.
  seat_ = nullptr;
  if (!error_ && left_ < block_threads_) error_ = place() + ": " + stuck();
  if (error_) abandon_block();
  current_ = -1;
}

void Machine::abandon_block() {
  abandoning_ = true;
  for (int t = 0; t < block_threads_; ++t) {
    EmulatedThread& thread = threads_[static_cast<std::size_t>(t)];
    if (!thread.seat) continue;
    seat_ = thread.seat;
    current_ = t;
    host_.switch_to(thread.seat->fiber);
    seat_ = nullptr;
  }
  abandoning_ = false;
  for (const auto& shown : shown_storage_) shown->readers = 0;
  shown_free_.clear();
  for (const auto& shown : shown_storage_) shown_free_.push_back(shown.get());
}

// ---- turns ----------------------------------------------------------------------------------------------------------

Seat& Machine::free_seat() {
  if (free_seats_.empty()) {
    const std::size_t number = seats_.size();
    seats_.push_back(std::make_unique<Seat>([this, number]() -> Fiber& { return seat_loop(*seats_[number]); }));
    return *seats_.back();
  }
  Seat* seat = free_seats_.back();
  free_seats_.pop_back();
  return *seat;
}

Fiber& Machine::seat_loop(Seat& seat) {
  while (!closing_) {
    go_on_with(seat.thread);
    thread().seat = &seat;
    run_thread(*body_);
    const int left = current_;
    threads_[static_cast<std::size_t>(left)].seat = nullptr;
    threads_[static_cast<std::size_t>(left)].state = EmulatedThread::State::left;
    ++left_;
    const int next = error_ || abandoning_ ? -1 : order_.take(random_);
    if (next >= 0 && !threads_[static_cast<std::size_t>(next)].seat) {
      seat.thread = next;
      continue;
    }
    free_seats_.push_back(&seat);
    if (next < 0) {
      seat.fiber.switch_to(host_);
    } else {
      seat_ = threads_[static_cast<std::size_t>(next)].seat;
      go_on_with(next);
      seat.fiber.switch_to(seat_->fiber);
    }
  }
  return host_;
}

void Machine::run_thread(const std::function<void()>& body) {
  thread().state = EmulatedThread::State::runs;
  try {
    body();
  } catch (const Abandon&) {
  } catch (const std::exception& error) {
    if (!error_) error_ = place() + ", thread " + std::to_string(current_) + ": " + error.what();
  } catch (...) {
    if (!error_) error_ = place() + ", thread " + std::to_string(current_) + ": an exception of an unknown type";
  }
}

void* Machine::shared_memory(std::size_t size, std::size_t align) {
  if (size > shared_bytes_)
    throw std::runtime_error("takes " + std::to_string(size) + " bytes of shared memory, the launch gave " +
                             std::to_string(shared_bytes_));
  if (align > 128) throw std::runtime_error("shared memory is aligned to 128 bytes, not to " + std::to_string(align));
  return shared_base();
}

// ---- what went wrong ------------------------------------------------------------------------------------------------

/// "thread 7", "threads 0-6, 9".
std::string Machine::threads_text(const std::vector<int>& threads) const {
  std::string out = threads.size() == 1 ? "thread " : "threads ";
  for (std::size_t i = 0; i < threads.size();) {
    std::size_t end = i + 1;
    while (end < threads.size() && threads[end] == threads[end - 1] + 1) ++end;
    if (i > 0) out += ", ";
    out += std::to_string(threads[i]);
    if (end - i > 1) out += "-" + std::to_string(threads[end - 1]);
    i = end;
  }
  return out;
}

/// Why nobody can go on.
std::string Machine::stuck() const {
  using State = EmulatedThread::State;
  std::vector<int> left, at_barrier;
  for (int t = 0; t < block_threads_; ++t) {
    const State state = threads_[static_cast<std::size_t>(t)].state;
    if (state == State::left) left.push_back(t);
    if (state == State::at_barrier) at_barrier.push_back(t);
  }
  std::string waits;
  if (!at_barrier.empty())
    waits = threads_text(at_barrier) + (at_barrier.size() == 1 ? " waits" : " wait") + " at __syncthreads of " +
            text_of(barrier_);
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    const int base = static_cast<int>(w) * kWarp;
    for (const Group& group : warps_[w].groups) {
      std::vector<int> here, missing;
      for (int lane = 0; lane < kWarp; ++lane) {
        if ((group.arrived >> lane & 1u) != 0)
          here.push_back(base + lane);
        else if ((group.mask >> lane & 1u) != 0)
          missing.push_back(base + lane);
      }
      if (!waits.empty()) waits += ", ";
      waits += threads_text(here) + (here.size() == 1 ? " waits" : " wait") + " at " + group.what + " of " +
               text_of(threads_[static_cast<std::size_t>(here.front())].where) + " with mask " +
               hexadecimal(group.mask) + " for " + threads_text(missing);
    }
  }
  return left.empty() ? waits : threads_text(left) + " left the kernel while " + waits;
}

}  // namespace simt
