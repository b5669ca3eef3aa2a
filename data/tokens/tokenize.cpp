#include "data/tokens/tokenize.h"

#include <spdlog/spdlog.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "data/base/error.h"
#include "data/tokens/shard_writer.h"
#include "data/tokens/tokenizer.h"

namespace routescope::data {

std::string read_document(const std::filesystem::path& file) {
  if (std::filesystem::is_directory(file)) throw Error("{}: is a directory, expected a text file", file.string());
  errno = 0;
  gzFile in = ::gzopen(file.c_str(), "rb");  // a file that is not gzip is read as it is
  if (!in) throw Error("{}: cannot open: {}", file.string(), std::strerror(errno ? errno : ENOMEM));
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> closer(in, ::gzclose_r);
  ::gzbuffer(in, 1 << 18);
  std::string out;
  std::vector<char> piece(1 << 20);
  int count = 0;
  while ((count = ::gzread(in, piece.data(), static_cast<unsigned>(piece.size()))) > 0)
    out.append(piece.data(), static_cast<std::size_t>(count));
  int status = Z_OK;
  const char* message = ::gzerror(in, &status);
  if (status == Z_ERRNO) throw Error("{}: cannot read: {}", file.string(), std::strerror(errno));
  // Z_BUF_ERROR at the end of the data: the file stops in the middle of a gzip stream.
  if (status != Z_OK && status != Z_STREAM_END)
    throw Error("{}: damaged gzip file after {} bytes of text: {}", file.string(), out.size(),
                status == Z_BUF_ERROR ? "it ends too early" : message);
  return out;
}

std::size_t split_point(const std::string& text, double fraction) {
  auto at = static_cast<std::size_t>(static_cast<double>(text.size()) * (1 - fraction));
  if (at == 0 || at >= text.size()) return at;
  const std::size_t line = text.find('\n', at - 1);
  if (line != std::string::npos && line + 1 < text.size()) return line + 1;
  const auto continues = [&](std::size_t i) { return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80; };
  while (at < text.size() && continues(at)) ++at;
  return at;
}

namespace {

// Writes one document, in pieces: its tokens are never in memory all at once.
std::int64_t append_document(ShardWriter& writer, std::string_view text) {
  constexpr std::size_t piece = 1 << 18;
  std::vector<std::int32_t> tokens;
  for (std::size_t begin = 0; begin < text.size(); begin += piece) {
    tokens.clear();
    byte_tokenizer::encode(text.substr(begin, piece), tokens);
    writer.append(tokens);
  }
  writer.append(std::vector<std::int32_t>{byte_tokenizer::end_of_document});
  return static_cast<std::int64_t>(text.size()) + 1;
}

}  // namespace

TokenizeResult tokenize(const TokenizeOptions& options) {
  ShardWriter writer(options.output, byte_tokenizer::vocab_size);
  std::optional<ShardWriter> valid;
  if (options.valid_output) valid.emplace(*options.valid_output, byte_tokenizer::vocab_size);
  TokenizeResult result;
  for (const auto& file : options.inputs) {
    const std::string text = read_document(file);
    if (text.empty()) {
      spdlog::warn("{}: empty, left out", file.string());
      continue;
    }
    ++result.documents;
    const std::size_t split = valid ? split_point(text, options.valid_fraction) : text.size();
    const std::string_view all = text;
    if (split > 0) result.tokens += append_document(writer, all.substr(0, split));
    if (split < text.size()) result.valid_tokens += append_document(*valid, all.substr(split));
  }
  if (result.documents == 0) throw Error("{}: found only empty inputs, expected text", options.output.string());
  if (valid) valid->finish();
  writer.finish();
  return result;
}

}  // namespace routescope::data
