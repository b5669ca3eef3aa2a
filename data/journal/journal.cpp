#include "data/journal/journal.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::data {

namespace {

constexpr std::array<char, 8> kMagic{'R', 'S', 'J', 'O', 'U', 'R', 'N', '1'};
// A journal is written anew once it has this many bytes and is this many times as long as its content.
constexpr std::int64_t kLong = 16 << 20, kTimes = 4;

constexpr std::uint32_t kVersion = 1;

struct Head {
  std::array<char, 8> magic = kMagic;
  JournalMark mark;
  std::uint32_t version = kVersion, checksum = 0;  // CRC-32 of what is before
};
static_assert(sizeof(Head) == 32);

struct EntryHead {
  std::int64_t address = 0;
  std::uint32_t bytes = 0, checksum = 0;  // CRC-32 of address, bytes and what follows
};
static_assert(sizeof(EntryHead) == 16);

std::uint32_t crc(std::uint32_t seed, const void* bytes, std::size_t count) {
  return static_cast<std::uint32_t>(::crc32_z(seed, static_cast<const Bytef*>(bytes), count));
}
std::uint32_t checksum_of(const Head& head) {
  return crc(0, &head, offsetof(Head, checksum));
}
std::uint32_t checksum_of(const EntryHead& head, const std::byte* bytes) {
  return crc(crc(0, &head, offsetof(EntryHead, checksum)), bytes, head.bytes);
}

void add_entry(std::vector<std::byte>& out, std::int64_t address, std::span<const std::byte> bytes) {
  EntryHead head{address, static_cast<std::uint32_t>(bytes.size()), 0};
  head.checksum = checksum_of(head, bytes.data());
  const auto raw = std::as_bytes(std::span(&head, 1));
  out.insert(out.end(), raw.begin(), raw.end());
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// 0 or errno.
int write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? errno : ENOSPC;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return 0;
}

}  // namespace

Journal::~Journal() {
  stop();
}

void Journal::stop() {
  stopped_ = true;
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

int Journal::write(std::int64_t address, std::span<const std::byte> bytes) {
  if (stopped_) return 0;
  image_.write(address, bytes);
  if (descriptor_ < 0) return 0;
  std::vector<std::byte> entry;
  add_entry(entry, address, bytes);
  bytes_ += static_cast<std::int64_t>(entry.size());
  // One call, so that a kill finds all of an entry, or a part of it that its checksum rejects.
  if (const int reason = write_all(descriptor_, entry)) {
    stop();
    return reason;
  }
  if (bytes_ <= kLong || bytes_ <= kTimes * image_.size()) return 0;
  // The name needs no sync: after a loss of power the old journal under this name is as good.
  const int reason = rewrite();
  if (reason != 0) stop();
  return reason;
}

void Journal::publish(const std::filesystem::path& file, const JournalMark& mark) {
  file_ = file;
  mark_ = mark;
  compact();
}

void Journal::compact() {
  if (stopped_) return;
  if (const int reason = rewrite()) throw Error("{}: cannot write: {}", file_.string(), std::strerror(reason));
  sync_path(file_.has_parent_path() ? file_.parent_path() : ".");
}

int Journal::rewrite() {
  Head head;
  head.mark = mark_;
  head.checksum = checksum_of(head);
  const auto raw = std::as_bytes(std::span(&head, 1));
  std::vector<std::byte> all(raw.begin(), raw.end());
  for (const auto& [address, bytes] : image_.pieces()) add_entry(all, address, bytes);
  int reason = 0, made = -1;
  try {
    Unfinished partial(file_);
    made = ::open(partial.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    reason = made < 0 ? errno : write_all(made, all);
    if (reason == 0) partial.publish();
  } catch (const Error&) {
    reason = errno != 0 ? errno : EIO;
  }
  if (reason != 0) {
    if (made >= 0) ::close(made);
    return reason;
  }
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = made;
  bytes_ = static_cast<std::int64_t>(all.size());
  return 0;
}

std::filesystem::path journal_name(const std::filesystem::path& file) {
  return file.string() + ".journal";
}

std::optional<JournalContent> read_journal(const std::filesystem::path& file) {
  // More than any journal holds: it is written anew when it has become long.
  constexpr std::uintmax_t most_bytes = std::uintmax_t{1} << 32;
  if (!std::filesystem::exists(journal_name(file))) return std::nullopt;
  const std::string text = read_text(journal_name(file), most_bytes);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  Head head;
  if (bytes.size() < sizeof head) return std::nullopt;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != kMagic || head.checksum != checksum_of(head) || head.version != kVersion) return std::nullopt;
  JournalContent out{head.mark, {}};
  for (std::size_t at = sizeof head; bytes.size() - at >= sizeof(EntryHead);) {
    EntryHead entry;
    std::memcpy(&entry, bytes.data() + at, sizeof entry);
    at += sizeof entry;
    // An address that no file has is no entry of ours.
    constexpr std::int64_t most_address = std::int64_t{1} << 62;
    if (entry.address < 0 || entry.address > most_address - std::int64_t{entry.bytes}) break;
    if (bytes.size() - at < entry.bytes || entry.checksum != checksum_of(entry, bytes.data() + at)) break;
    out.image.write(entry.address, bytes.subspan(at, entry.bytes));
    at += entry.bytes;
  }
  return out;
}

bool stands_in(int descriptor, const JournalMark& mark) {
  JournalMark found;
  const ssize_t count = ::pread(descriptor, found.id.data(), found.id.size(), mark.address);
  return count == static_cast<ssize_t>(found.id.size()) && found.id == mark.id;
}

}  // namespace routescope::data
