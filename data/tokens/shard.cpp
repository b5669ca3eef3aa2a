#include "data/tokens/shard.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "data/base/error.h"
#include "data/tokens/shard_files.h"
#include "data/tokens/shard_format.h"

namespace routescope::data {

using namespace shard_format;

namespace {

/// Opens a file for reading. If the process may open no more files, it raises its own limit as far as it may.
FileDescriptor open_file(const std::filesystem::path& file) {
  const auto open = [&file] { return ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); };
  int descriptor = open();
  rlimit limit{};
  if (descriptor < 0 && errno == EMFILE && ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    descriptor = open();
  }
  if (descriptor < 0) throw Error("{}: cannot open: {}", file.string(), std::strerror(errno));
  return FileDescriptor(descriptor);
}

std::int64_t nanoseconds(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Shard::Shard(const std::filesystem::path& file) : file_(file), descriptor_(open_file(file)) {
  const std::string name = file.string();
  struct stat status {};
  if (::fstat(descriptor_.get(), &status) != 0 || !S_ISREG(status.st_mode))
    throw Error("{}: not a regular file, expected a token shard", name);
  opened_ = {status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim)};
  if (opened_.bytes < static_cast<std::int64_t>(shard_format::header_bytes))
    throw Error("{}: {} bytes, expected a token shard of at least {} (its header)", name, opened_.bytes,
                shard_format::header_bytes);
  std::array<std::int32_t, 3> header{};
  read_bytes(0, std::as_writable_bytes(std::span(header)));
  const shard_format::Kind* kind = shard_format::kind_of_magic(header[0]);
  if (!kind)
    throw Error("{}: offset 0: magic {}, expected {} (uint16) or {} (uint32)", name, header[0],
                shard_format::kinds[0].magic, shard_format::kinds[1].magic);
  if (header[1] != kind->version)
    throw Error("{}: offset 4: version {}, expected {} with magic {}", name, header[1], kind->version, kind->magic);
  width_ = kind->width;
  tokens_ = header[2];
  const std::int64_t expected = static_cast<std::int64_t>(shard_format::header_bytes) + tokens_ * width_;
  if (tokens_ < 0 || expected != opened_.bytes)
    throw Error("{}: {} bytes, expected {} for the {} tokens of {} bytes that offset 8 announces", name, opened_.bytes,
                expected, tokens_, width_);
}

void Shard::check_unchanged() const {
  struct stat status {};
  if (::stat(file_.c_str(), &status) != 0)
    throw Error("{}: changed while it was in use: {}, expected the file of {} bytes that was opened", file_.string(),
                std::strerror(errno), opened_.bytes);
  const Identity now{status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim)};
  if (now == opened_) return;
  throw Error("{}: changed while it was in use: found {}, expected the file of {} bytes that was opened",
              file_.string(),
              now.device != opened_.device || now.inode != opened_.inode ? "another file under its name"
              : now.bytes != opened_.bytes                               ? fmt::format("{} bytes", now.bytes)
                                                                         : "another time of its last change",
              opened_.bytes);
}

void Shard::read_bytes(std::int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = ::pread(descriptor_.get(), out.data(), out.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("{}: offset {}: cannot read: {}", file_.string(), offset, std::strerror(errno));
    if (count == 0)
      throw Error("{}: offset {}: found the end of the file, expected {} more bytes (changed while it was in use)",
                  file_.string(), offset, out.size());
    offset += count;
    out = out.subspan(static_cast<std::size_t>(count));
  }
}

void Shard::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (begin < 0 || begin > tokens_ || count > tokens_ - begin)
    throw Error("{}: tokens {} to {} asked for, there are {}", file_.string(), begin, begin + count, tokens_);
  check_unchanged();
  const std::int64_t offset = static_cast<std::int64_t>(shard_format::header_bytes) + begin * width_;
  if (width_ == 2) {
    std::vector<std::uint16_t> tokens(out.size());
    read_bytes(offset, std::as_writable_bytes(std::span(tokens)));
    std::copy(tokens.begin(), tokens.end(), out.begin());
  } else {
    std::vector<std::uint32_t> tokens(out.size());
    read_bytes(offset, std::as_writable_bytes(std::span(tokens)));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] > 0x7fffffffu)
        throw Error("{}: token {}: id {}, expected at most {}", file_.string(), begin + static_cast<std::int64_t>(i),
                    tokens[i], 0x7fffffff);
      out[i] = static_cast<std::int32_t>(tokens[i]);
    }
  }
}

std::int32_t Shard::largest_id(std::int64_t* offset) const {
  constexpr std::int64_t piece = 1 << 16;
  std::vector<std::int32_t> tokens;
  std::int32_t largest = -1;
  std::int64_t where = 0;
  for (std::int64_t begin = 0; begin < tokens_; begin += piece) {
    tokens.resize(static_cast<std::size_t>(std::min(piece, tokens_ - begin)));
    read(begin, tokens);
    const auto most = std::max_element(tokens.begin(), tokens.end());
    if (*most > largest) {
      largest = *most;
      where = begin + (most - tokens.begin());
    }
  }
  if (offset) *offset = where;
  return largest;
}

TokenStream::TokenStream(const std::vector<std::string>& patterns, std::int64_t vocab_size) {
  for (const auto& file : shard_files(patterns)) {
    const Shard& shard = shards_.emplace_back(file);
    starts_.push_back(total_);
    total_ += shard.size();
    if (vocab_size <= 0 || shard.size() == 0) continue;
    std::int64_t offset = 0;
    if (const std::int32_t largest = shard.largest_id(&offset); largest >= vocab_size)
      throw Error("{}: token {}: id {}, expected below the vocabulary size {}", file.string(), offset, largest,
                  vocab_size);
  }
}

std::string TokenStream::name() const {
  const std::string first = shards_.front().file().string();
  return shards_.size() == 1 ? first : fmt::format("{} and {} more", first, shards_.size() - 1);
}

void TokenStream::hold(std::int64_t count) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(std::min(count, total_)));
  read(0, tokens);
  held_ = std::move(tokens);
}

void TokenStream::check_unchanged() const {
  for (const Shard& shard : shards_) shard.check_unchanged();
}

void TokenStream::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (begin < 0 || begin > total_ || count > total_ - begin)
    throw Error("token stream: tokens {} to {} asked for, there are {}", begin, begin + count, total_);
  if (begin + count <= std::ssize(held_)) {
    std::copy_n(held_.begin() + begin, count, out.begin());
    return;
  }
  std::size_t done = 0;
  auto index = static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin()) - 1;
  while (done < out.size()) {
    const Shard& shard = shards_[index];
    const std::int64_t within = begin + static_cast<std::int64_t>(done) - starts_[index];
    const auto here = std::min(out.size() - done, static_cast<std::size_t>(shard.size() - within));
    shard.read(within, out.subspan(done, here));
    done += here;
    ++index;
  }
}

std::string TokenStream::fingerprint() const {
  // Sizes and both ends of every shard, in order. This is cheap for any number of tokens, and different data sets that
  // agree in all of it are very unlikely. Names are left out, so that a moved data set is still the same.
  constexpr std::int64_t end_tokens = 4096;
  std::vector<std::int64_t> values;
  for (const Shard& shard : shards_) {
    values.push_back(shard.size());
    values.push_back(shard.bytes_per_token());
    const std::int64_t count = std::min(shard.size(), end_tokens);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
    for (const std::int64_t begin : {std::int64_t{0}, shard.size() - count}) {
      shard.read(begin, tokens);
      values.insert(values.end(), tokens.begin(), tokens.end());
    }
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  EVP_Digest(values.data(), values.size() * sizeof(values[0]), digest.data(), &length, EVP_sha256(), nullptr);
  std::string out;
  for (unsigned i = 0; i < 16; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

}  // namespace routescope::data
