// The emulator of CUDA's execution model: a launch runs its blocks one after another, and a block's threads as fibers
// that take turns wherever they meet. What a kernel asks for beyond CUDA's own names (include/cuda_runtime.h) is here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <type_traits>

#include "tests/simt/emulator/types.h"

namespace simt {

inline constexpr int kWarp = 32;

/// All orders (of blocks, of threads) follow from the seed. It comes from ROUTESCOPE_SIMT_SEED where that is set.
/// Setting it, also to what it is, starts the sequence of orders again.
void set_seed(std::uint64_t seed);
std::uint64_t seed();

/// Runs body() once for each thread of each block, with threadIdx, blockIdx, blockDim and gridDim set, or records that
/// on a stream that is recording. Throws std::runtime_error, naming kernel, block and threads, where CUDA would refuse
/// the launch or a kernel breaks the rules of its meetings (barriers, exchanges); after that no thread of it is left.
void launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
            std::function<void()> body);

/// The block's dynamic shared memory. Throws unless the launch gave at least `size` bytes.
void* shared_memory(std::size_t size, std::size_t align);

/// Copies that run beside the thread that starts them (cp.async): 4, 8 or 16 bytes, aligned to their size, of which the
/// first `valid` come from src and the rest are zeros. The bytes are in dst after an async_wait that covers the group
/// which they were committed to; until then dst holds garbage. As on the device, other threads also need a barrier.
void async_copy(void* shared_dst, const void* src, std::size_t bytes, std::size_t valid);
inline void async_copy(void* shared_dst, const void* src, std::size_t bytes) {
  async_copy(shared_dst, src, bytes, bytes);
}
/// Closes a group of copies.
void async_commit();
/// Waits until at most the `groups_left` youngest groups are on their way.
void async_wait(int groups_left);

/// Where the kernel calls; kept for messages, and to tell one barrier from another.
using Where = std::source_location;

/// One meeting of the lanes in `mask`, at which each shows one value. Constructing it waits for all of them; they have
/// to come with the same mask to the same kind of meeting (`what`), with values of one size.
class Meeting {
 public:
  Meeting(unsigned mask, const char* what, const Where& where, const void* mine, std::size_t bytes);
  ~Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  /// The value that a lane of the mask brought.
  const void* value_of(int lane) const { return values_ + static_cast<std::size_t>(lane) * bytes_; }

 private:
  const std::byte* values_;
  std::size_t bytes_;
};

/// A meeting at which each lane names the lane whose word, of 4 or 8 bytes, it gets. Throws where that is not in the
/// mask.
std::uint64_t exchange_word(unsigned mask, const char* what, const Where& where, std::uint64_t mine, std::size_t bytes,
                            int source);
/// A meeting at which each lane gets the lanes that said yes.
unsigned vote(unsigned mask, const char* what, const Where& where, bool yes);

/// The calling thread's place in its warp, 0 to 31.
int lane();
void barrier(const Where& where);
/// A place at which another thread may go on; memory operations that other threads can see have one.
void maybe_switch();
[[noreturn]] void fail(const std::string& message);

/// Every lane gets the values of all lanes in `mask`; those of other lanes are value-initialised. `what` names the
/// instruction that is emulated.
template <class T>
std::array<T, kWarp> gather(unsigned mask, const T& mine, const char* what, const Where& where = Where::current()) {
  static_assert(std::is_trivially_copyable_v<T>);
  const Meeting meeting(mask, what, where, &mine, sizeof(T));
  std::array<T, kWarp> all{};
  for (int i = 0; i < kWarp; ++i)
    if (mask >> i & 1u) std::memcpy(&all[static_cast<std::size_t>(i)], meeting.value_of(i), sizeof(T));
  return all;
}

}  // namespace simt
