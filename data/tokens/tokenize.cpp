#include "data/tokens/tokenize.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>

#include "data/base/error.h"
#include "data/tokens/shard_writer.h"
#include "data/tokens/text_file.h"
#include "data/tokens/tokenizer.h"

namespace routescope::data {

std::int64_t split_point(const TextPieces& text, std::int64_t bytes, double fraction) {
  const auto at = static_cast<std::int64_t>(static_cast<double>(bytes) * (1 - fraction));
  if (at == 0 || at >= bytes) return at;
  std::int64_t begin = 0, line = bytes, character = bytes;
  text([&](std::string_view piece) {
    const std::int64_t end = begin + static_cast<std::int64_t>(piece.size());
    for (std::int64_t i = std::max(begin, at - 1); i < end && line == bytes; ++i) {
      const char byte = piece[static_cast<std::size_t>(i - begin)];
      if (byte == '\n') line = i + 1;
      if (i >= at && character == bytes && (static_cast<unsigned char>(byte) & 0xc0) != 0x80) character = i;
    }
    begin = end;
    return line == bytes;
  });
  return line < bytes ? line : character;
}

namespace {

/// Writes a document's tokens, the first `split` of them to one shard and the others to a second.
class Document {
 public:
  Document(ShardWriter& writer, ShardWriter* valid, std::int64_t split)
      : writer_(writer), valid_(valid), split_(split) {}

  void append(std::string_view piece) {
    const auto first = static_cast<std::size_t>(std::clamp<std::int64_t>(split_ - bytes_, 0, std::ssize(piece)));
    write(writer_, piece.substr(0, first));
    if (first < piece.size()) write(*valid_, piece.substr(first));
    bytes_ += std::ssize(piece);
  }
  void finish(TokenizeResult& result) {
    if (bytes_ == 0) return;
    ++result.documents;
    const std::int64_t first = std::min(split_, bytes_);
    if (first > 0) result.tokens += end(writer_, first);
    if (first < bytes_) result.valid_tokens += end(*valid_, bytes_ - first);
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  void write(ShardWriter& writer, std::string_view text) {
    tokens_.clear();
    byte_tokenizer::encode(text, tokens_);
    writer.append(tokens_);
  }
  std::int64_t end(ShardWriter& writer, std::int64_t bytes) {
    writer.append(std::vector<std::int32_t>{byte_tokenizer::end_of_document});
    return bytes + 1;
  }

  ShardWriter& writer_;
  ShardWriter* valid_;
  std::int64_t split_, bytes_ = 0;
  std::vector<std::int32_t> tokens_;
};

TextPieces pieces_of(const std::filesystem::path& file, bool any_bytes) {
  return [file, any_bytes](const std::function<bool(std::string_view)>& take) {
    TextFile text(file, any_bytes);
    for (std::string_view piece = text.next(); !piece.empty() && take(piece); piece = text.next()) {
    }
  };
}

std::int64_t bytes_of(const TextPieces& text) {
  std::int64_t bytes = 0;
  text([&](std::string_view piece) { return bytes += std::ssize(piece), true; });
  return bytes;
}

}  // namespace

TokenizeResult tokenize(const TokenizeOptions& options) {
  ShardWriter writer(options.output, byte_tokenizer::vocab_size);
  std::optional<ShardWriter> valid;
  if (options.valid_output) valid.emplace(*options.valid_output, byte_tokenizer::vocab_size);
  TokenizeResult result;
  for (const auto& file : options.inputs) {
    const TextPieces text = pieces_of(file, options.any_bytes);
    const std::int64_t bytes = valid ? bytes_of(text) : 0;
    const std::int64_t split =
        valid ? split_point(text, bytes, options.valid_fraction) : std::numeric_limits<std::int64_t>::max();
    Document document(writer, valid ? &*valid : nullptr, split);
    text([&](std::string_view piece) { return document.append(piece), true; });
    if (valid && document.bytes() != bytes)
      throw Error("{}: found {} bytes of text, then {}: it changed meanwhile", file.string(), bytes, document.bytes());
    if (document.bytes() == 0) spdlog::warn("{}: empty, left out", file.string());
    document.finish(result);
  }
  if (result.documents == 0) throw Error("{}: found only empty inputs, expected text", options.output.string());
  if (valid) valid->finish();
  writer.finish();
  return result;
}

}  // namespace routescope::data
