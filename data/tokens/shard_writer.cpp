#include "data/tokens/shard_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/tokens/shard_format.h"

namespace routescope::data {

using namespace shard_format;

struct ShardWriter::Impl {
  explicit Impl(std::filesystem::path target) : file(std::move(target)), partial(file) {}
  std::filesystem::path file;
  Unfinished partial;
  std::int64_t vocab_size = 0;
  shard_format::Kind kind{};
  std::FILE* out = nullptr;
  std::int64_t tokens = 0;

  ~Impl() {
    if (out) std::fclose(out);
  }

  [[noreturn]] void fail() const { throw Error("{}: cannot write: {}", file.string(), std::strerror(errno)); }
  void put(const void* data, std::size_t bytes) {
    if (bytes > 0 && std::fwrite(data, 1, bytes, out) != bytes) fail();
  }
};

ShardWriter::ShardWriter(std::filesystem::path file, std::int64_t vocab_size)
    : impl_(std::make_unique<Impl>(std::move(file))) {
  impl_->vocab_size = vocab_size;
  impl_->kind = shard_format::kinds[vocab_size - 1 <= std::numeric_limits<std::uint16_t>::max() ? 0 : 1];
  impl_->out = std::fopen(impl_->partial.path().c_str(), "wbx");
  if (!impl_->out) throw Error("{}: cannot create: {}", impl_->file.string(), std::strerror(errno));
  const std::array<std::byte, shard_format::header_bytes> empty{};
  impl_->put(empty.data(), empty.size());
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::append(std::span<const std::int32_t> tokens) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (impl_->tokens + std::ssize(tokens) > most)
    throw Error("{}: found more than {} tokens, which a shard's header cannot count: expected several shards",
                impl_->file.string(), most);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= impl_->vocab_size)
      throw Error("{}: token {}: id {}, expected 0 to {}", impl_->file.string(),
                  impl_->tokens + static_cast<std::int64_t>(i), tokens[i], impl_->vocab_size - 1);
  if (impl_->kind.width == 2) {
    const std::vector<std::uint16_t> narrow(tokens.begin(), tokens.end());
    impl_->put(narrow.data(), narrow.size() * 2);
  } else {
    impl_->put(tokens.data(), tokens.size() * 4);
  }
  impl_->tokens += static_cast<std::int64_t>(tokens.size());
}

void ShardWriter::finish() {
  const std::array<std::int32_t, 3> header{impl_->kind.magic, impl_->kind.version,
                                           static_cast<std::int32_t>(impl_->tokens)};
  if (std::fseek(impl_->out, 0, SEEK_SET) != 0) impl_->fail();
  impl_->put(header.data(), sizeof header);
  if (std::fflush(impl_->out) != 0) impl_->fail();
  impl_->partial.publish();
  std::fclose(std::exchange(impl_->out, nullptr));
}

}  // namespace routescope::data
