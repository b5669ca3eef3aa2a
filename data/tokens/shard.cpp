#include "data/tokens/shard.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
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

Shard::Shard(const std::filesystem::path& file) : file_(file) {
  const std::string name = file.string();
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error("{}: cannot open: {}", name, std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  map_size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  void* map = nullptr;
  if (map_size_ >= shard_format::header_bytes) map = ::mmap(nullptr, map_size_, PROT_READ, MAP_SHARED, descriptor, 0);
  const int reason = errno;
  ::close(descriptor);
  if (!regular) throw Error("{}: not a regular file, expected a token shard", name);
  if (map_size_ < shard_format::header_bytes)
    throw Error("{}: {} bytes, expected a token shard of at least {} (its header)", name, map_size_,
                shard_format::header_bytes);
  if (map == MAP_FAILED) throw Error("{}: cannot map: {}", name, std::strerror(reason));
  map_ = static_cast<const std::byte*>(map);

  try {
    std::array<std::int32_t, 3> header{};
    std::memcpy(header.data(), map_, sizeof header);
    const shard_format::Kind* kind = shard_format::kind_of_magic(header[0]);
    if (!kind)
      throw Error("{}: offset 0: magic {}, expected {} (uint16) or {} (uint32)", name, header[0],
                  shard_format::kinds[0].magic, shard_format::kinds[1].magic);
    if (header[1] != kind->version)
      throw Error("{}: offset 4: version {}, expected {} with magic {}", name, header[1], kind->version, kind->magic);
    width_ = kind->width;
    tokens_ = header[2];
    const std::int64_t expected = static_cast<std::int64_t>(shard_format::header_bytes) + tokens_ * width_;
    if (tokens_ < 0 || expected != static_cast<std::int64_t>(map_size_))
      throw Error("{}: {} bytes, expected {} for the {} tokens of {} bytes that offset 8 announces", name, map_size_,
                  expected, tokens_, width_);
  } catch (...) {
    ::munmap(const_cast<std::byte*>(map_), map_size_);
    throw;
  }
}

Shard::~Shard() {
  if (map_) ::munmap(const_cast<std::byte*>(map_), map_size_);
}

Shard::Shard(Shard&& other) noexcept
    : file_(std::move(other.file_)),
      map_(std::exchange(other.map_, nullptr)),
      map_size_(other.map_size_),
      tokens_(other.tokens_),
      width_(other.width_) {}

void Shard::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (begin < 0 || begin + count > tokens_)
    throw Error("{}: tokens {} to {} asked for, there are {}", file_.string(), begin, begin + count, tokens_);
  const std::byte* from = map_ + shard_format::header_bytes + begin * width_;
  if (width_ == 2) {
    // The header is a multiple of the widths, so the tokens are aligned.
    const auto* tokens = reinterpret_cast<const std::uint16_t*>(from);
    std::copy(tokens, tokens + count, out.begin());
  } else {
    const auto* tokens = reinterpret_cast<const std::uint32_t*>(from);
    for (std::int64_t i = 0; i < count; ++i) {
      if (tokens[i] > 0x7fffffffu)
        throw Error("{}: token {}: id {}, expected at most {}", file_.string(), begin + i, tokens[i], 0x7fffffff);
      out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(tokens[i]);
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

void TokenStream::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (begin < 0 || begin + count > total_)
    throw Error("token stream: tokens {} to {} asked for, there are {}", begin, begin + count, total_);
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
