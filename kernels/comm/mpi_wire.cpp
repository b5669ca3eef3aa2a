#include "kernels/comm/mpi_wire.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace routescope::kernels::mpi {

namespace {

/// How a thread waits. Ranks may share cores with threads that compute, so it polls only as long as a short message
/// takes, and then sleeps, longer each time.
class Pause {
 public:
  /// Returns whether it slept.
  bool operator()() {
    const auto now = Clock::now();
    if (now - since_ < std::chrono::microseconds(20)) return false;
    std::this_thread::sleep_for(sleep_);
    sleep_ = std::min(sleep_ * 5 / 4, now - since_ < std::chrono::milliseconds(500) ? kShort : kLong);
    return true;
  }
  Clock::duration waited() const { return Clock::now() - since_; }
  void progress() { *this = Pause(); }

 private:
  static constexpr std::chrono::nanoseconds kShort{200'000}, kLong{1'000'000};
  Clock::time_point since_ = Clock::now();
  std::chrono::nanoseconds sleep_{20'000};
};

}  // namespace

template <class Work>
void Wire::or_end(const Work& work) const {
  try {
    work();
  } catch (const MpiError& error) {
    control_.end(lost_rank_status, error.what());
  } catch (const std::exception& error) {
    control_.end(1, error.what());
  }
}

Wire::Wire(MPI_Comm comm, Control& control, const std::atomic<bool>& halted)
    : comm_(comm), control_(control), halted_(halted) {
  check(MPI_Comm_rank(comm_, &rank_), "rank");
  check(MPI_Comm_size(comm_, &size_), "size");
}

void Wire::send(Batch& batch, int peer, const void* data, std::size_t bytes) {
  for (std::size_t begin = 0; begin < bytes;) {
    const std::size_t part = std::min(bytes - begin, options().message_bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    or_end([&] {
      check(MPI_Isend(static_cast<const std::byte*>(data) + begin, static_cast<int>(part), MPI_BYTE, peer, 0, comm_,
                      &request),
            what_.c_str());
    });
    batch.requests.push_back(request);
    batch.expected.push_back({peer, -1, -1});
    begin += part;
  }
}

void Wire::receive(Batch& batch, int peer, void* data, std::size_t bytes) {
  for (std::size_t begin = 0; begin < bytes;) {
    const std::size_t part = std::min(bytes - begin, options().message_bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    or_end([&] {
      check(
          MPI_Irecv(static_cast<std::byte*>(data) + begin, static_cast<int>(part), MPI_BYTE, peer, 0, comm_, &request),
          what_.c_str());
    });
    batch.requests.push_back(request);
    batch.expected.push_back({peer, static_cast<std::int64_t>(part), static_cast<std::int64_t>(part)});
    begin += part;
  }
}

void Wire::receive_head(Batch& batch, int peer, Head& head) {
  receive(batch, peer, &head, sizeof head);
  batch.expected.back().least = sizeof head.envelope;
}

void Wire::begin(std::uint64_t number, const std::string& what) {
  number_ = number;
  what_ = what;
}

void Wire::wait(Batch& batch) {
  or_end([&] { complete(batch); });
}

void Wire::complete(Batch& batch) {
  const auto count = static_cast<int>(batch.requests.size());
  indices_.resize(batch.requests.size());
  statuses_.resize(batch.requests.size());
  int left = count;
  for (Pause pause; left > 0;) {
    while (halted_) {
      control_.poll();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    int done = 0;
    const int status = MPI_Testsome(count, batch.requests.data(), &done, indices_.data(), statuses_.data());
    if (status != MPI_SUCCESS && status != MPI_ERR_IN_STATUS) check(status, what_.c_str());
    for (int i = 0; i < done; ++i) {
      const Batch::Expected& expected = batch.expected[static_cast<std::size_t>(indices_[static_cast<std::size_t>(i)])];
      const MPI_Status& one = statuses_[static_cast<std::size_t>(i)];
      int error_class = MPI_SUCCESS;
      if (status == MPI_ERR_IN_STATUS) MPI_Error_class(one.MPI_ERROR, &error_class);
      if (error_class != MPI_SUCCESS && error_class != MPI_ERR_TRUNCATE) {
        check(one.MPI_ERROR, (what_ + ", rank " + std::to_string(expected.peer)).c_str());
      }
      if (expected.most < 0) continue;
      int bytes = 0;
      check(MPI_Get_count(&one, MPI_BYTE, &bytes), what_.c_str());
      if (bytes < expected.least || bytes > expected.most || error_class == MPI_ERR_TRUNCATE) {
        throw std::runtime_error(what_ + ": found " +
                                 (error_class == MPI_ERR_TRUNCATE ? "more" : std::to_string(bytes)) +
                                 " bytes from rank " + std::to_string(expected.peer) + ", expected " +
                                 std::to_string(expected.most) + ": the ranks are not in the same collective");
      }
    }
    left -= std::max(done, 0);
    if (done == MPI_UNDEFINED) break;
    if (done > 0) {
      pause.progress();
      continue;
    }
    if (!pause()) continue;
    control_.poll();
    const std::chrono::duration<double> waited = pause.waited();
    if (waited.count() > options().timeout_seconds) {
      control_.overdue(Control::over_mpi, number_, what_, waited.count());
      pause.progress();
    }
  }
  batch.requests.clear();
  batch.expected.clear();
}

void Wire::check_envelope(int peer, const Envelope& found, const Envelope& expected) const {
  if (found.number == expected.number && found.count == expected.count && found.type == expected.type &&
      found.what == expected.what) {
    return;
  }
  const auto text = [](const Envelope& envelope) {
    return std::string(envelope.what.data()) + ", collective number " + std::to_string(envelope.number) + ", " +
           std::to_string(envelope.count) + " elements, " + envelope.type.data();
  };
  control_.end(1, "the ranks are not in the same collective: rank " + std::to_string(peer) + " is in " + text(found) +
                      ", rank " + std::to_string(rank_) + " in " + text(expected));
}

void Wire::send_message(int peer, Envelope envelope, std::span<const std::byte> bytes) {
  envelope.bytes = bytes.size();
  Head first{envelope, {}};
  const std::size_t with_it = std::min(bytes.size(), first.bytes.size());
  std::copy_n(bytes.data(), with_it, first.bytes.data());
  Batch batch;
  send(batch, peer, &first, sizeof first.envelope + with_it);
  send(batch, peer, bytes.data() + with_it, bytes.size() - with_it);
  wait(batch);
}

void Wire::receive_message(int peer, const Envelope& expected, std::vector<std::byte>& bytes) {
  Head first;
  Batch batch;
  receive_head(batch, peer, first);
  wait(batch);
  check_envelope(peer, first.envelope, expected);
  const std::size_t with_it = std::min<std::size_t>(first.envelope.bytes, first.bytes.size());
  bytes.insert(bytes.end(), first.bytes.data(), first.bytes.data() + with_it);
  const std::size_t begin = bytes.size();
  bytes.resize(begin + first.envelope.bytes - with_it);
  receive(batch, peer, bytes.data() + begin, first.envelope.bytes - with_it);
  wait(batch);
}

}  // namespace routescope::kernels::mpi
