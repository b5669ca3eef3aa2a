// Collectives over MPI. Tensors: every rank sends every other rank its part, in chunks, and each rank sums the parts in
// the order of ranks, so that neither MPI's algorithms nor timing change a bit. Host values: gathered along a binomial
// tree to rank 0 and sent back down, 2 log2(ranks) short messages one after the other.
#include "kernels/comm/mpi.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <type_traits>

#include "kernels/bf16.h"
#include "kernels/comm/mpi_thread.h"
#include "kernels/comm/staging.h"
#include "kernels/memory.h"

namespace routescope::kernels {

namespace {

using mpi::Envelope;
using mpi::MpiThread;
using mpi::Wire;

/// The thread that abandon() uses, from the start of MPI to its end.
MpiThread* thread_of_process = nullptr;

Envelope envelope_of(std::uint64_t number, std::int64_t count, const std::string& type, const std::string& label) {
  Envelope out{.number = number, .count = static_cast<std::uint64_t>(count)};
  type.copy(out.type.data(), out.type.size() - 1);
  label.copy(out.what.data(), out.what.size() - 1);
  return out;
}

const char* name_of(DType type) {
  switch (type) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
  }
  return "";
}

const char* name_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      return "sum";
    case Reduction::min:
      return "min";
    case Reduction::max:
      return "max";
  }
  return "";
}

template <class T>
struct Sum {
  using Type = T;
};
template <>
struct Sum<bf16> {
  using Type = float;  // rounded once, at the end
};

/// out[i] = parts[0][i] + parts[1][i] + ..., from left to right. `out` may be one of them.
template <class T>
void add_up(T* out, const std::vector<const T*>& parts, std::size_t count) {
  constexpr std::size_t kBlock = 1024;
  typename Sum<T>::Type sum[kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t n = std::min(kBlock, count - begin);
    if constexpr (std::is_same_v<T, bf16>) {
      for (std::size_t i = 0; i < n; ++i) sum[i] = to_float(parts[0][begin + i]);
      for (std::size_t p = 1; p < parts.size(); ++p) {
        for (std::size_t i = 0; i < n; ++i) sum[i] += to_float(parts[p][begin + i]);
      }
      for (std::size_t i = 0; i < n; ++i) out[begin + i] = to_bf16(sum[i]);
    } else {
      std::copy_n(parts[0] + begin, n, sum);
      for (std::size_t p = 1; p < parts.size(); ++p) {
        for (std::size_t i = 0; i < n; ++i) sum[i] += parts[p][begin + i];
      }
      std::copy_n(sum, n, out + begin);
    }
  }
}

/// Sends all other ranks the name of this collective, and checks that they are in it.
class Agreement {
 public:
  Agreement(Wire& wire, const Envelope& envelope)
      : wire_(wire), mine_(envelope), theirs_(static_cast<std::size_t>(wire.size())) {
    for (int d = 1; d < wire.size(); ++d) {
      const int to = (wire.rank() + d) % wire.size(), from = (wire.rank() + wire.size() - d) % wire.size();
      wire.receive_head(batch_, from, theirs_[static_cast<std::size_t>(from)]);
      wire.send(batch_, to, &mine_, sizeof mine_);
    }
  }
  void wait() {
    wire_.wait(batch_);
    for (int r = 0; r < wire_.size(); ++r) {
      if (r != wire_.rank()) wire_.check_envelope(r, theirs_[static_cast<std::size_t>(r)].envelope, mine_);
    }
  }

 private:
  Wire& wire_;
  Envelope mine_;
  std::vector<mpi::Head> theirs_;
  Wire::Batch batch_;
};

/// Host memory for staging_slots chunks; it grows to the need of the largest sum.
struct Staging {
  Buffer buffer;
  void hold(std::size_t bytes) {
    if (buffer.bytes() < bytes) buffer = Buffer(bytes, Device::cpu);
  }
};

template <class T>
void reduce_scatter_chunks(Wire& wire, Staging& staging, T* piece, T* whole, std::size_t count) {
  const auto ranks = static_cast<std::size_t>(wire.size()), rank = static_cast<std::size_t>(wire.rank());
  const std::size_t chunk = staging_chunk(wire.size(), count, sizeof(T), wire.options());
  const std::size_t chunks = (count + chunk - 1) / chunk;
  staging.hold(std::min(staging_slots, chunks) * (ranks - 1) * chunk * sizeof(T));
  // Rank r's part of chunk c.
  const auto slot = [&](std::size_t c, std::size_t r) {
    return static_cast<T*>(staging.buffer.data()) + ((c % staging_slots) * (ranks - 1) + r - (r > rank)) * chunk;
  };
  std::array<Wire::Batch, staging_slots> batches;
  const auto start = [&](std::size_t c) {
    if (c >= chunks) return;
    const std::size_t begin = c * chunk, n = std::min(chunk, count - begin);
    for (std::size_t d = 1; d < ranks; ++d) {
      const std::size_t to = (rank + d) % ranks, from = (rank + ranks - d) % ranks;
      wire.receive(batches[c % staging_slots], static_cast<int>(from), slot(c, from), n * sizeof(T));
      wire.send(batches[c % staging_slots], static_cast<int>(to), whole + to * count + begin, n * sizeof(T));
    }
  };
  std::vector<const T*> parts(ranks);
  for (std::size_t c = 0; c < staging_slots; ++c) start(c);
  for (std::size_t c = 0; c < chunks; ++c) {
    wire.wait(batches[c % staging_slots]);
    const std::size_t begin = c * chunk;
    for (std::size_t r = 0; r < ranks; ++r) parts[r] = r == rank ? whole + rank * count + begin : slot(c, r);
    add_up(piece + begin, parts, std::min(chunk, count - begin));
    start(c + staging_slots);
  }
}

/// The binomial tree of rank 0: the children of a rank, in ascending order, have the ranks that follow it.
std::vector<int> children(int rank, int size) {
  std::vector<int> out;
  for (int bit = 1; bit < size && (rank & bit) == 0; bit <<= 1) {
    if (rank + bit < size) out.push_back(rank + bit);
  }
  return out;
}
int parent(int rank) {
  return rank & (rank - 1);
}

/// values[i] over ranks; `all` holds them by rank. A NaN wins every comparison.
void reduce_ranks(std::span<double> values, std::span<const double> all, Reduction reduction) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    double& so_far = values[i % values.size()];
    if (i < values.size()) {
      so_far = all[i];
    } else if (reduction == Reduction::sum) {
      so_far += all[i];
    } else if (std::isnan(all[i]) || (reduction == Reduction::min ? all[i] < so_far : all[i] > so_far)) {
      so_far = all[i];
    }
  }
}

/// On rank 0: the values of all ranks, in their order.
std::vector<std::byte> up(Wire& wire, const Envelope& envelope, std::span<const std::byte> mine) {
  std::vector<std::byte> bytes(mine.begin(), mine.end());
  for (int child : children(wire.rank(), wire.size())) wire.receive_message(child, envelope, bytes);
  if (wire.rank() != 0) wire.send_message(parent(wire.rank()), envelope, bytes);
  return bytes;
}

/// Rank 0's bytes everywhere.
void down(Wire& wire, const Envelope& envelope, std::vector<std::byte>& bytes) {
  if (wire.rank() != 0) {
    bytes.clear();
    wire.receive_message(parent(wire.rank()), envelope, bytes);
  }
  const std::vector<int> below = children(wire.rank(), wire.size());
  for (auto child = below.rbegin(); child != below.rend(); ++child) wire.send_message(*child, envelope, bytes);
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(std::unique_ptr<MpiThread> thread)
      : Communicator(thread->place()), thread_(std::move(thread)), exceptions_(std::uncaught_exceptions()) {
    thread_of_process = thread_.get();
  }

  ~MpiCommunicator() override {
    // After an exception the other ranks are elsewhere: the thread stays and answers until abandon().
    if (std::uncaught_exceptions() > exceptions_ || thread_->halted()) {
      static_cast<void>(thread_.release());
      return;
    }
    barrier("the end of the job");
    thread_of_process = nullptr;
    if (!thread_->close()) static_cast<void>(thread_.release());
  }

  Lane* lane() const { return thread_.get(); }

  Ticket reduce_scatter(Tensor piece, Tensor whole, const Stream&, const std::string& what) override {
    check_tensors(piece, whole, what);
    switch (piece.dtype) {
      case DType::f64:
        return start_reduce_scatter<double>(piece, whole, what);
      case DType::f32:
        return start_reduce_scatter<float>(piece, whole, what);
      case DType::bf16:
        return start_reduce_scatter<bf16>(piece, whole, what);
      case DType::i32:
        break;
    }
    throw std::invalid_argument(what + ": reduce_scatter sums f32, f64 and bf16 only");
  }

  Ticket all_gather(Tensor whole, Tensor piece, const Stream&, const std::string& what) override {
    check_tensors(piece, whole, what);
    count_bytes(piece);
    const std::string label = "all-gather (" + what + ")";
    return thread_->submit(label, [piece, whole, label](Wire& wire, std::uint64_t number) {
      const std::size_t bytes = piece.bytes();
      Agreement agreement(wire, envelope_of(number, piece.numel(), name_of(piece.dtype), label));
      agreement.wait();
      Wire::Batch batch;
      const auto place_of = [&](int r) {
        return static_cast<std::byte*>(whole.data) + static_cast<std::size_t>(r) * bytes;
      };
      for (int d = 1; d < wire.size(); ++d) {
        const int to = (wire.rank() + d) % wire.size(), from = (wire.rank() + wire.size() - d) % wire.size();
        wire.receive(batch, from, place_of(from), bytes);
        wire.send(batch, to, piece.data, bytes);
      }
      if (place_of(wire.rank()) != piece.data && bytes != 0) std::memcpy(place_of(wire.rank()), piece.data, bytes);
      wire.wait(batch);
    });
  }

  void wait(Ticket ticket, const Stream&) override { wait_for(ticket); }

  void quiesce(double seconds) override { thread_->quiesce(seconds); }

  void all_reduce(std::span<double> values, Reduction reduction, const std::string& what) override {
    const std::string label = (values.empty() ? "barrier (" : "all-reduce (") + what + ")";
    wait_for(thread_->submit(label, [values, reduction, label](Wire& wire, std::uint64_t number) {
      const Envelope envelope =
          envelope_of(number, static_cast<std::int64_t>(values.size()), name_of(reduction), label);
      std::vector<std::byte> bytes = up(wire, envelope, std::as_bytes(values));
      if (wire.rank() == 0) {
        std::vector<double> all(values.size() * static_cast<std::size_t>(wire.size())), out(values.size());
        if (!all.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
        reduce_ranks(out, all, reduction);
        bytes.resize(values.size_bytes());
        if (!bytes.empty()) std::memcpy(bytes.data(), out.data(), bytes.size());
      }
      down(wire, envelope, bytes);
      if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    }));
  }

  std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
    std::vector<std::string> out;
    const std::string label = "gather (" + what + ")";
    wait_for(thread_->submit(label, [&bytes, &out, label](Wire& wire, std::uint64_t number) {
      const std::uint64_t length = bytes.size();
      std::vector<std::byte> mine(sizeof length + bytes.size());
      std::memcpy(mine.data(), &length, sizeof length);
      if (length != 0) std::memcpy(mine.data() + sizeof length, bytes.data(), bytes.size());
      const std::vector<std::byte> all = up(wire, envelope_of(number, 0, "bytes", label), mine);
      if (wire.rank() != 0) return;
      for (std::size_t begin = 0; begin < all.size();) {
        std::uint64_t size = 0;
        std::memcpy(&size, all.data() + begin, sizeof size);
        begin += sizeof size;
        out.emplace_back(reinterpret_cast<const char*>(all.data()) + begin, size);
        begin += size;
      }
    }));
    return out;
  }

  std::string broadcast(const std::string& bytes, const std::string& what) override {
    std::string out = bytes;
    const std::string label = "broadcast (" + what + ")";
    wait_for(thread_->submit(label, [&out, label](Wire& wire, std::uint64_t number) {
      const auto* first = reinterpret_cast<const std::byte*>(out.data());
      std::vector<std::byte> all(first, first + out.size());
      down(wire, envelope_of(number, 0, "bytes", label), all);
      out.assign(reinterpret_cast<const char*>(all.data()), all.size());
    }));
    return out;
  }

  Traffic traffic() const override { return traffic_; }

 private:
  template <class T>
  Ticket start_reduce_scatter(Tensor piece, Tensor whole, const std::string& what) {
    const auto* first = static_cast<const std::byte*>(whole.data);
    const auto* mine = static_cast<const std::byte*>(piece.data);
    if (mine < first + whole.bytes() && first < mine + piece.bytes() &&
        mine != first + static_cast<std::size_t>(rank()) * piece.bytes()) {
      throw std::invalid_argument(what + ": piece lies in whole, but not at this rank's place");
    }
    count_bytes(piece);
    const std::string label = "reduce-scatter (" + what + ")";
    return thread_->submit(label, [this, piece, whole, label](Wire& wire, std::uint64_t number) {
      Agreement agreement(wire, envelope_of(number, piece.numel(), name_of(piece.dtype), label));
      agreement.wait();
      reduce_scatter_chunks(wire, staging_, piece.as<T>(), whole.as<T>(), static_cast<std::size_t>(piece.numel()));
    });
  }

  void check_tensors(const Tensor& piece, const Tensor& whole, const std::string& what) const {
    if (piece.device != Device::cpu || whole.device != Device::cpu) {
      throw std::invalid_argument(what + ": expected tensors in host memory");
    }
    if (piece.dtype != whole.dtype || whole.numel() != size() * piece.numel()) {
      throw std::invalid_argument(what + ": expected tensors of one type, whole of " + std::to_string(size()) +
                                  " pieces; found " + std::to_string(whole.numel()) + " and " +
                                  std::to_string(piece.numel()) + " elements");
    }
  }
  void count_bytes(const Tensor& piece) { traffic_.bytes += static_cast<std::uint64_t>(size() - 1) * piece.bytes(); }
  void wait_for(Ticket ticket) {
    const auto begin = mpi::Clock::now();
    thread_->wait(ticket);
    traffic_.seconds_waited += std::chrono::duration<double>(mpi::Clock::now() - begin).count();
  }

  Staging staging_;  // of the MPI thread
  std::unique_ptr<MpiThread> thread_;
  int exceptions_;
  Traffic traffic_;
};

}  // namespace

MpiRanks start_mpi(const Place& launched, const CommunicatorOptions& options) {
  auto communicator = std::make_unique<MpiCommunicator>(std::make_unique<MpiThread>(launched, options));
  Lane* lane = communicator->lane();
  return {std::move(communicator), lane};
}

void abandon_mpi(int status, const std::string& whole_line) {
  if (thread_of_process) thread_of_process->abandon(status, whole_line);
}

}  // namespace routescope::kernels
