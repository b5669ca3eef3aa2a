// Documents of a token stream, and the windows of it that models are probed on. Windows of one document are not
// independent, so a probe takes one window of each document as long as there are documents.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace routescope::data {

/// Tokens to be read in pieces: read(begin, out) fills `out` with tokens [begin, begin + out.size()).
struct TokenSource {
  std::int64_t size = 0;
  std::function<void(std::int64_t begin, std::span<std::int32_t> out)> read;
};
TokenSource source_of(std::span<const std::int32_t> tokens);
/// `tokens` has size() and read(), as Shard and TokenStream do, and must outlive the source.
template <class Tokens>
requires requires(const Tokens& tokens, std::span<std::int32_t> out) {
  tokens.read(std::int64_t{0}, out);
}
TokenSource source_of(const Tokens& tokens) {
  return {tokens.size(), [&tokens](std::int64_t begin, std::span<std::int32_t> out) { tokens.read(begin, out); }};
}

/// Windows of `length` tokens, ascending, no two of which overlap.
struct TokenWindows {
  std::int64_t length = 0;
  std::vector<std::int64_t> begin;
  /// Of each window: the number in the stream, from 0, of the document that its first token belongs to. Empty: the
  /// stream has no end-of-document token.
  std::vector<std::int64_t> document;
};

/// `count` windows of a stream, chosen by its documents. A document ends with a token of `ends`; if the stream begins
/// with such a token, documents begin with it instead. One pass, in memory for a fixed number of windows, not for the
/// stream.
/// - No two windows have tokens of one document, as long as the stream can give that many. The documents are then
///   spread evenly over the stream. In a document of `length` tokens or more the window's place depends on the
///   document's number alone; shorter ones share a window, which begins with the first of them.
/// - Else each of those documents gives as equal a number of windows as its length allows.
/// - If that is not enough either, or the stream has no token of `ends`, windows are spread evenly over the stream.
/// Throws std::invalid_argument unless the stream has count * length tokens.
TokenWindows choose_windows(const TokenSource& source, std::span<const std::int64_t> ends, std::int64_t length,
                            std::int64_t count);

/// The number in the stream of the document that each of these tokens belongs to (`at` ascending); empty if no token of
/// the stream is one of `ends`.
std::vector<std::int64_t> documents_at(const TokenSource& source, std::span<const std::int64_t> ends,
                                       std::span<const std::int64_t> at);

/// The tokens of the windows, [windows, length].
std::vector<std::int32_t> read_windows(const TokenSource& source, const TokenWindows& windows);

}  // namespace routescope::data
