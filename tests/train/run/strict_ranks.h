// Ranks as threads of one process, with strict checks. One rank runs at a time until it waits for another one, so that
// they can share the emulated device. Tensors of a collective belong to it until wait(): they are NaN until then, a
// write to them and another collective with them are detected.
#pragma once

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/device.h"

namespace routescope::testing {

class StrictRanks {
 public:
  /// Calls `body` for each rank in its own thread. Throws the first exception of a rank again.
  static void run(int ranks, const std::function<void(kernels::Communicator&)>& body) {
    Shared shared;
    shared.ranks = ranks;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&shared, &body, rank, ranks] {
        omp_set_num_threads(1);
        std::unique_lock turn(shared.turn);
        try {
          Rank communicator(shared, turn, {.rank = rank, .size = ranks, .local_rank = rank});
          body(communicator);
        } catch (...) {
          if (!shared.error) shared.error = std::current_exception();
          shared.changed.notify_all();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (shared.error) std::rethrow_exception(shared.error);
  }

 private:
  using Bytes = std::vector<std::byte>;

  /// One rank's part in one collective.
  struct Part {
    kernels::Tensor piece, whole;  // undefined in collectives of host values
    Bytes sent;                    // reduce_scatter: `whole`; else `piece` or the host's bytes
  };
  struct Collective {
    std::string what;
    std::map<int, Part> parts;
    int done = 0;
  };
  struct Shared {
    int ranks = 0;
    std::mutex turn;  // held by the rank that runs
    std::condition_variable changed;
    std::map<std::uint64_t, Collective> collectives;
    std::exception_ptr error;
  };

  class Rank final : public kernels::Communicator {
   public:
    Rank(Shared& shared, std::unique_lock<std::mutex>& turn, const kernels::Place& place)
        : kernels::Communicator(place), shared_(shared), turn_(turn) {}

    Ticket reduce_scatter(kernels::Tensor piece, kernels::Tensor whole, const kernels::Stream& stream,
                          const std::string& what) override {
      expect_sizes(piece, whole, what);
      return start("sum " + what, {piece, whole, read(whole, stream)}, stream);
    }

    Ticket all_gather(kernels::Tensor whole, kernels::Tensor piece, const kernels::Stream& stream,
                      const std::string& what) override {
      expect_sizes(piece, whole, what);
      return start("gather " + what, {piece, whole, read(piece, stream)}, stream);
    }

    void wait(Ticket ticket, const kernels::Stream& stream) override {
      if (ticket == 0) return;
      Collective& collective = meet(ticket);
      const Part& mine = collective.parts.at(rank());
      for (const kernels::Tensor& tensor : {mine.piece, mine.whole})
        if (read(tensor, stream) != not_a_number(tensor))
          throw std::logic_error(collective.what + ": somebody wrote where it was under way");
      if (collective.what.starts_with("sum ")) {
        write(mine.whole, mine.sent, stream);
        write(mine.piece, sum(collective, mine.piece), stream);
      } else {
        write(mine.piece, mine.sent, stream);
        write(mine.whole, concatenated(collective), stream);
      }
      leave(ticket);
    }

    void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override {
      const Ticket ticket = post("reduce " + what, {{}, {}, bytes_of(values.data(), values.size_bytes())});
      const Collective& collective = meet(ticket);
      for (const auto& [rank, part] : collective.parts) {
        if (part.sent.size() != values.size_bytes()) throw std::logic_error(what + ": sizes differ between ranks");
        for (std::size_t i = 0; i < values.size(); ++i) {
          double value = 0;
          std::memcpy(&value, part.sent.data() + i * sizeof value, sizeof value);
          values[i] = rank == 0                              ? value
                      : reduction == kernels::Reduction::sum ? values[i] + value
                      : reduction == kernels::Reduction::min ? std::min(values[i], value)
                                                             : std::max(values[i], value);
        }
      }
      leave(ticket);
    }

    std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
      const Ticket ticket = post("texts " + what, {{}, {}, bytes_of(bytes.data(), bytes.size())});
      const Collective& collective = meet(ticket);
      std::vector<std::string> out;
      if (rank() == 0)
        for (const auto& [rank, part] : collective.parts) out.push_back(text_of(part.sent));
      leave(ticket);
      return out;
    }

    std::string broadcast(const std::string& bytes, const std::string& what) override {
      const Ticket ticket = post("text " + what, {{}, {}, bytes_of(bytes.data(), bytes.size())});
      std::string out = text_of(meet(ticket).parts.at(0).sent);
      leave(ticket);
      return out;
    }

    Traffic traffic() const override { return {.bytes = 0, .seconds_waited = seconds_waited_}; }

   private:
    std::ptrdiff_t begin_of(std::size_t piece_bytes) const { return static_cast<std::ptrdiff_t>(piece_bytes) * rank(); }
    static Bytes not_a_number(const kernels::Tensor& tensor) { return Bytes(tensor.bytes(), std::byte{0xff}); }
    static bool overlap(const kernels::Tensor& a, const kernels::Tensor& b) {
      const auto *first = static_cast<const std::byte*>(a.data), *second = static_cast<const std::byte*>(b.data);
      const std::less<> before;
      return before(first, second + b.bytes()) && before(second, first + a.bytes());
    }
    static Bytes bytes_of(const void* data, std::size_t size) {
      const auto* begin = static_cast<const std::byte*>(data);
      return size == 0 ? Bytes() : Bytes(begin, begin + size);
    }
    static std::string text_of(const Bytes& bytes) {
      return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    static kernels::Tensor on_host(Bytes& bytes, const kernels::Tensor& like) {
      return kernels::Tensor(bytes.data(), like.dtype, kernels::Device::cpu, {like.numel()});
    }
    static Bytes read(const kernels::Tensor& tensor, const kernels::Stream& stream) {
      Bytes out(tensor.bytes());
      kernels::copy(on_host(out, tensor), tensor, stream);
      kernels::synchronize(stream);
      return out;
    }
    static void write(const kernels::Tensor& tensor, Bytes bytes, const kernels::Stream& stream) {
      kernels::copy(tensor, on_host(bytes, tensor), stream);
      kernels::synchronize(stream);
    }

    void expect_sizes(const kernels::Tensor& piece, const kernels::Tensor& whole, const std::string& what) const {
      if (piece.numel() * size() != whole.numel() || piece.dtype != whole.dtype)
        throw std::logic_error(what + ": the piece does not fit the whole");
    }

    /// Posts a collective on tensors, which are NaN until wait().
    Ticket start(const std::string& what, const Part& part, const kernels::Stream& stream) {
      for (const Ticket ticket : pending_) {
        const Collective& other = shared_.collectives.at(ticket);
        const Part& held = other.parts.at(rank());
        for (const kernels::Tensor& mine : {part.piece, part.whole})
          if (overlap(mine, held.piece) || overlap(mine, held.whole))
            throw std::logic_error(what + ": its tensors belong to " + other.what + ", which is under way");
      }
      for (const kernels::Tensor& tensor : {part.piece, part.whole}) write(tensor, not_a_number(tensor), stream);
      const Ticket ticket = post(what, part);
      pending_.insert(ticket);
      return ticket;
    }

    Ticket post(const std::string& what, Part part) {
      Collective& collective = shared_.collectives[++posted_];
      if (collective.parts.empty()) collective.what = what;
      if (collective.what != what) throw std::logic_error("ranks meet in " + collective.what + " and in " + what);
      collective.parts[rank()] = std::move(part);
      shared_.changed.notify_all();
      return posted_;
    }
    /// Waits until all ranks have called it.
    Collective& meet(Ticket ticket) {
      Collective& collective = shared_.collectives.at(ticket);
      const auto begin = std::chrono::steady_clock::now();
      shared_.changed.wait(turn_,
                           [&] { return shared_.error || static_cast<int>(collective.parts.size()) == shared_.ranks; });
      seconds_waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (shared_.error) throw std::runtime_error("another rank failed");
      return collective;
    }
    void leave(Ticket ticket) {
      pending_.erase(ticket);
      if (++shared_.collectives.at(ticket).done == shared_.ranks) shared_.collectives.erase(ticket);
    }

    template <class T>
    Bytes sum_as(const Collective& collective, const kernels::Tensor& piece) const {
      std::vector<T> total(static_cast<std::size_t>(piece.numel())), term(total.size());
      for (const auto& [rank, part] : collective.parts) {
        std::memcpy(term.data(), part.sent.data() + begin_of(piece.bytes()), piece.bytes());
        for (std::size_t i = 0; i < total.size(); ++i) total[i] = rank == 0 ? term[i] : total[i] + term[i];
      }
      return bytes_of(total.data(), piece.bytes());
    }
    Bytes sum(const Collective& collective, const kernels::Tensor& piece) const {
      return piece.dtype == kernels::DType::f64 ? sum_as<double>(collective, piece) : sum_as<float>(collective, piece);
    }
    static Bytes concatenated(const Collective& collective) {
      Bytes out;
      for (const auto& [rank, part] : collective.parts) out.insert(out.end(), part.sent.begin(), part.sent.end());
      return out;
    }

    Shared& shared_;
    std::unique_lock<std::mutex>& turn_;
    double seconds_waited_ = 0;
    Ticket posted_ = 0;
    std::set<Ticket> pending_;  // collectives on tensors before wait()
  };
};

}  // namespace routescope::testing
