#include "kernels/comm/mpi_control.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>  // program_invocation_short_name
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

namespace routescope::kernels::mpi {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAnswerTime{2000};  // a rank that can answer does so within this time
constexpr milliseconds kTurn{200};         // that a rank leaves to each lower one, so that one of them speaks for all
constexpr int kLastTurn = 50;              // later ranks share this one
constexpr milliseconds kQuestionsPeace{5000};  // how long a rank waits for the verdict of a rank that asked
constexpr milliseconds kLookTime{1000};        // between looks after neighbours
constexpr milliseconds kLastWords{2000};       // how long others wait for the line of a rank that ended
constexpr milliseconds kDeliveryTime{500};

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 10 ? "%.1f s" : "%.0f s", seconds);
  return text;
}

}  // namespace

void check(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw MpiError(std::string("MPI: ") + what + ": " + text);
}

Control::Control(MPI_Comm comm, std::vector<Peer> peers, CommunicatorOptions options)
    : comm_(comm), peers_(std::move(peers)), options_(std::move(options)) {
  check(MPI_Comm_rank(comm_, &rank_), "rank");
  for (std::size_t r = 0; r < peers_.size(); ++r) {
    const bool known = state_of(peers_[r], peers_[static_cast<std::size_t>(rank_)]) != PeerState::unknown;
    if (known && static_cast<int>(r) != rank_) neighbours_.push_back(static_cast<int>(r));
  }
  receive();
}

void Control::receive() {
  const int error = MPI_Irecv(&incoming_, sizeof incoming_, MPI_BYTE, MPI_ANY_SOURCE, 0, comm_, &receiving_);
  if (error != MPI_SUCCESS) cannot_receive(error);
}

void Control::cannot_receive(int error) {
  receiving_ = MPI_REQUEST_NULL;
  if (!ending_) check(error, "control messages");
}

void Control::send(int rank, const Message& message) {
  Sending& sending = sending_.emplace_back(Sending{message, MPI_REQUEST_NULL});
  const int error = MPI_Isend(&sending.message, sizeof sending.message, MPI_BYTE, rank, 0, comm_, &sending.request);
  if (error != MPI_SUCCESS) sending_.pop_back();
}

void Control::poll() {
  while (receiving_ != MPI_REQUEST_NULL) {
    int came = 0;
    MPI_Status status;
    if (const int error = MPI_Test(&receiving_, &came, &status); error != MPI_SUCCESS) {
      cannot_receive(error);
      break;
    }
    if (!came) break;
    const Message message = incoming_;
    receive();
    obey(message, status.MPI_SOURCE);
  }
  std::erase_if(sending_, [](Sending& sending) {
    int done = 0;
    return MPI_Test(&sending.request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0;
  });
  look_after_neighbours();
  for (;;) {
    std::function<void()> act;
    {
      const std::lock_guard lock(mutex_);
      if (posted_.empty()) return;
      act = std::move(posted_.front());
      posted_.pop_front();
    }
    act();
  }
}

void Control::post(std::function<void()> act) {
  const std::lock_guard lock(mutex_);
  posted_.push_back(std::move(act));
}

void Control::obey(const Message& message, int from) {
  switch (message.type) {
    case question: {
      last_question_ = Clock::now();
      Message reply{.type = answer, .lane = message.lane};
      {
        const std::lock_guard lock(mutex_);
        const Position& position = positions_[static_cast<std::size_t>(message.lane)];
        reply.number = position.number;
        position.what.copy(reply.what.data(), reply.what.size() - 1);
      }
      send(from, reply);
      return;
    }
    case answer:
      if (!answers_.empty()) answers_[static_cast<std::size_t>(from)] = Position{message.number, message.what.data()};
      return;
    case notice:
      leave(message.status);
    default:
      return;
  }
}

void Control::poll_for(milliseconds time) {
  for (const auto until = Clock::now() + time; Clock::now() < until;) {
    poll();
    std::this_thread::sleep_for(milliseconds(5));
  }
}

void Control::wait_for_turn() {
  poll_for(kTurn * std::min(rank_, kLastTurn));
  while (last_question_ != Clock::time_point{} && Clock::now() - last_question_ < kQuestionsPeace) {
    poll_for(milliseconds(20));
  }
}

void Control::look_after_neighbours() {
  if (ending_ || Clock::now() - last_look_ < kLookTime) return;
  const Peer& self = peers_[static_cast<std::size_t>(rank_)];
  for (int r : neighbours_) {
    if (state_of(peers_[static_cast<std::size_t>(r)], self) != PeerState::gone) continue;
    ending_ = true;
    poll_for(kLastWords);
    std::vector<bool> silent(peers_.size());
    silent[static_cast<std::size_t>(r)] = true;
    std::string where;
    {
      const std::lock_guard lock(mutex_);
      const Position& position = positions_[over_mpi];
      if (position.number != 0) where = "; this rank had come to " + position.what;
    }
    end(lost_rank_status,
        describe(r, peers_[static_cast<std::size_t>(r)]) + " is dead: it was killed or ended without a word" + where,
        silent);
  }
  last_look_ = Clock::now();
}

void Control::set_position(LaneName lane, std::uint64_t number, const std::string& what) {
  const std::lock_guard lock(mutex_);
  positions_[lane] = {number, what};
}

void Control::keep_for_end(std::function<void()> act) {
  const std::lock_guard lock(mutex_);
  act_for_end_ = std::move(act);
}

void Control::overdue(LaneName lane, std::uint64_t number, const std::string& what, double seconds) {
  wait_for_turn();
  answers_.assign(peers_.size(), std::nullopt);
  Message asked{.type = question, .lane = lane, .number = number};
  what.copy(asked.what.data(), asked.what.size() - 1);
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r) {
    if (r != rank_) send(r, asked);
  }
  const auto missing = [&] {
    return std::ranges::count_if(answers_, [](const auto& reply) { return !reply; }) - 1;
  };  // without this rank
  for (const auto until = Clock::now() + kAnswerTime; missing() > 0 && Clock::now() < until;)
    poll_for(milliseconds(10));

  // Silent ranks come first in the line, before ranks that are late because of them.
  std::vector<bool> silent(peers_.size());
  int first_silent = -1, first_late = -1, others = -1;
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r) {
    if (r == rank_) continue;
    const auto& reply = answers_[static_cast<std::size_t>(r)];
    const bool late = reply && reply->number < number;
    silent[static_cast<std::size_t>(r)] = !reply;
    if (!reply && first_silent < 0) first_silent = r;
    if (late && first_late < 0) first_late = r;
    if (!reply || late) ++others;
  }
  const int named = first_silent >= 0 ? first_silent : first_late;
  std::string line;
  if (named >= 0) {
    const Peer& peer = peers_[static_cast<std::size_t>(named)];
    line = describe(named, peer) + " has not come to " + what + " for " + seconds_text(seconds);
    if (const auto& reply = answers_[static_cast<std::size_t>(named)]) {
      line +=
          "; it answers, so it hangs or computes; it last came to " + (reply->number == 0 ? "nothing" : reply->what);
    } else {
      switch (state_of(peer, peers_[static_cast<std::size_t>(rank_)])) {
        case PeerState::gone:
          line += "; it is dead";
          break;
        case PeerState::stopped:
          line += "; it is stopped (SIGSTOP or a debugger)";
          break;
        default:
          line += " and does not answer: it is dead, stopped or unreachable";
      }
    }
    if (others > 0)
      line += "; " + std::to_string(others) + (others == 1 ? " other rank" : " other ranks") + " likewise";
  } else {
    // No rank is missing: the collective is about to continue, or messages get lost.
    answers_.clear();
    if (std::exchange(doubted_[lane], number) != number) return;
    line = "every rank has come to " + what + ", but it has not gone on for " + seconds_text(seconds) +
           ": the network between them does not work, or a device hangs";
  }
  end(lost_rank_status, line, silent);
}

void Control::end(int status, const std::string& line, const std::vector<bool>& silent) {
  end_with(status,
           std::string(program_invocation_short_name) + ": error: " + line +
               (status == lost_rank_status && !options_.advice.empty() ? "; " + options_.advice : "") + "\n",
           silent);
}

void Control::end_with(int status, const std::string& whole_line, const std::vector<bool>& silent) {
  ending_ = true;
  if (!whole_line.empty()) {
    wait_for_turn();
    if (::write(STDERR_FILENO, whole_line.data(), whole_line.size()) < 0) {
      // Standard error is closed: only the status is left.
    }
  }
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r) {
    const bool hears = silent.empty() || !silent[static_cast<std::size_t>(r)];
    if (r != rank_ && hears) send(r, {.type = notice, .status = status});
  }
  for (const auto until = Clock::now() + kDeliveryTime; !sending_.empty() && Clock::now() < until;) {
    poll_for(milliseconds(1));
  }
  leave(status);
}

void Control::leave(int status) {
  std::function<void()> act;
  {
    const std::lock_guard lock(mutex_);
    act = act_for_end_;
  }
  // The action may hang as well, for the same reason as the job.
  const auto done = std::make_shared<std::atomic<bool>>(false);
  std::thread([act, done] {
    std::fflush(nullptr);
    if (act) act();
    *done = true;
  }).detach();
  for (int i = 0; i < 400 && !*done; ++i) std::this_thread::sleep_for(milliseconds(5));
  ::_exit(status);
}

void Control::close() {
  ending_ = true;
  check(MPI_Cancel(&receiving_), "closing");
  check(MPI_Wait(&receiving_, MPI_STATUS_IGNORE), "closing");
  for (Sending& sending : sending_) check(MPI_Wait(&sending.request, MPI_STATUS_IGNORE), "closing");
}

}  // namespace routescope::kernels::mpi
