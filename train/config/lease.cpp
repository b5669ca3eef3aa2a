#include "train/config/lease.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/comm/peer.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBytes = 512;  // of the file, always: a heartbeat replaces it in one write

struct Holder {
  kernels::Peer peer;
  std::string token;
  bool given_back = false;
};

std::string random_token() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

std::string text_of(const std::string& token, std::uint64_t beats, bool given_back) {
  const kernels::Peer self = kernels::this_peer();
  std::string text =
      nlohmann::json{{"host", self.host.data()},      {"process", self.process}, {"started", self.started},
                     {"name_space", self.name_space}, {"token", token},          {"beats", beats},
                     {"given_back", given_back}}
          .dump();
  text.resize(kBytes - 1, ' ');
  return text + "\n";
}

/// Nothing of a file that is not whole: its maker may be about to write it, or died before that.
std::optional<Holder> holder_of(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    Holder out;
    const auto host = json.at("host").get<std::string>();
    host.copy(out.peer.host.data(), out.peer.host.size() - 1);
    out.peer.process = json.at("process");
    out.peer.started = json.at("started");
    out.peer.name_space = json.at("name_space");
    out.token = json.at("token");
    out.given_back = json.at("given_back");
    return out;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

/// Nothing if the file is not there. It is opened anew each time: then NFS asks its server.
std::optional<std::string> read_lease(const fs::path& file) {
  const data::FileDescriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (in.get() < 0) {
    if (errno == ENOENT || errno == ESTALE) return std::nullopt;
    throw data::Error("{}: cannot open: {}", file.string(), std::strerror(errno));
  }
  std::string text(kBytes, '\0');
  const ssize_t count = ::pread(in.get(), text.data(), text.size(), 0);
  if (count < 0 && errno == ESTALE) return std::nullopt;
  if (count < 0) throw data::Error("{}: cannot read: {}", file.string(), std::strerror(errno));
  text.resize(static_cast<std::size_t>(count));
  return text;
}

[[noreturn]] void refuse(const fs::path& file, const std::string& text) {
  const std::optional<Holder> holder = holder_of(text);
  throw data::Error("{}: another process{} is training in this directory, expected none", file.string(),
                    holder ? fmt::format(" ({}, process {})", holder->peer.host.data(), holder->peer.process) : "");
}

/// Returns when the lease with this text is given back, or its holder dead: of another machine, without a sign of life
/// for `stale`. A living one is refused.
void wait_for_end(const fs::path& file, const std::string& text, const LeaseTimes& times) {
  const std::optional<Holder> holder = holder_of(text);
  if (holder && holder->given_back) return;
  const kernels::PeerState state =
      holder ? kernels::state_of(holder->peer, kernels::this_peer()) : kernels::PeerState::unknown;
  if (state == kernels::PeerState::gone) return;
  if (state != kernels::PeerState::unknown) refuse(file, text);
  spdlog::warn("{}: {} held this lease last; waiting {} s for a sign of life", file.string(),
               holder ? fmt::format("process {} of {}", holder->peer.process, holder->peer.host.data()) : "somebody",
               std::chrono::duration<double>(times.stale).count());
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < times.stale) {
    std::this_thread::sleep_for(std::min(times.beat, times.stale) / 10);
    const std::optional<std::string> now = read_lease(file);
    if (!now) return;
    if (*now == text) continue;
    if (const std::optional<Holder> last = holder_of(*now); last && last->given_back) return;
    refuse(file, *now);
  }
}

/// The number of a holder's file; 0 for other names.
std::uint64_t number_of(const fs::path& file) {
  const std::string name = file.filename().string();
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? number : 0;
}

}  // namespace

Lease::Lease(fs::path dir, LeaseTimes times) : dir_(std::move(dir)), times_(times), token_(random_token()) {
  std::error_code error;
  fs::create_directories(dir_, error);
  if (error) throw data::Error("{}: cannot be made: {}", dir_.string(), error.message());
  // The listing may be old: what follows the last file listed is looked up, and made only if it is not there.
  for (fs::directory_iterator entry(dir_, error), end; !error && entry != end; entry.increment(error))
    number_ = std::max(number_, number_of(entry->path()));
  do {
    while (read_lease(file(number_ + 1))) ++number_;
    if (number_ > 0)
      if (const std::optional<std::string> text = read_lease(file(number_))) wait_for_end(file(number_), *text, times_);
    ++number_;
  } while (!create());
  remove_old();
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the thread that waits for them
  heart_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!ending_.wait_for(lock, times_.beat, [this] { return ended_; }))
      if (!beat(false)) lost_ = true;
  });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Lease::~Lease() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ending_.notify_all();
  heart_.join();
  if (!lost_) beat(true);
}

fs::path Lease::file(std::uint64_t number) const {
  return dir_ / std::to_string(number);
}

void Lease::check() const {
  if (!lost_) return;
  std::optional<std::string> text;
  try {
    text = read_lease(file(number_ + 1));
  } catch (const data::Error&) {
    // It is lost, whoever holds it.
  }
  const std::optional<Holder> holder = text ? holder_of(*text) : std::nullopt;
  const std::string found =
      holder ? fmt::format("a later one of process {} of {}", holder->peer.process, holder->peer.host.data())
      : text ? "a later one"
             : "none";
  throw data::Error(
      "{}: found {}, expected the lease of this process: it stood still for too long, or the file was removed",
      file(number_).string(), found);
}

bool Lease::create() {
  const fs::path own = file(number_);
  const data::FileDescriptor out(::open(own.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (out.get() < 0) {
    if (errno == EEXIST) return false;
    throw data::Error("{}: cannot create: {}", own.string(), std::strerror(errno));
  }
  const std::string text = text_of(token_, beats_, false);
  if (::pwrite(out.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::fsync(out.get()) != 0) {
    const int reason = errno;
    ::unlink(own.c_str());
    throw data::Error("{}: cannot write: {}", own.string(), std::strerror(reason));
  }
  return true;
}

bool Lease::beat(bool last) {
  try {
    const std::optional<std::string> text = read_lease(file(number_));
    const std::optional<Holder> holder = text ? holder_of(*text) : std::nullopt;
    if (!holder || holder->token != token_ || read_lease(file(number_ + 1))) return false;
  } catch (const data::Error&) {
    return true;  // the file system does not answer: nobody else can take the lease either
  }
  const data::FileDescriptor out(::open(file(number_).c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  const std::string next = text_of(token_, ++beats_, last);
  if (out.get() >= 0 && ::pwrite(out.get(), next.data(), next.size(), 0) == static_cast<ssize_t>(next.size()))
    ::fsync(out.get());
  return true;
}

void Lease::remove_old() const {
  // A machine whose listing is older than this would make one of these files again.
  constexpr auto day = std::chrono::hours(24);
  std::error_code error;
  const fs::file_time_type now = fs::last_write_time(file(number_), error);
  for (fs::directory_iterator entry(dir_, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    const std::uint64_t number = number_of(entry->path());
    if (number > 0 && number < number_ && fs::last_write_time(entry->path(), gone) < now - day && !gone)
      fs::remove(entry->path(), gone);
  }
}

}  // namespace routescope::train
