// A text file from beginning to end, decompressed, in pieces: its size does not matter.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace routescope::data {

/// What is read from a compressed or plain file. Which of gzip, bzip2, xz or zstd it is shows in its first bytes, not
/// in its name; several compressed files one after the other are one text. Every function throws Error.
class TextFile {
 public:
  /// `any_bytes`: do not require text.
  TextFile(std::filesystem::path file, bool any_bytes);
  ~TextFile();
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  /// The next bytes; empty at the end. Throws Error, with the offset within the text, for a NUL byte, for bytes that
  /// are not UTF-8 and for archives; and for a damaged file, or one that goes on after its compressed data.
  std::string_view next();

  struct Source;

 private:
  void check(std::string_view piece);
  [[noreturn]] void refuse(std::int64_t offset, const std::string& found) const;

  std::filesystem::path file_;
  bool any_bytes_;
  std::unique_ptr<Source> source_;
  std::int64_t checked_ = 0;  // bytes of earlier pieces
  std::string cut_;           // the beginning of a character at the end of the last piece
};

}  // namespace routescope::data
