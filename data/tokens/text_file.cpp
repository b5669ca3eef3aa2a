#include "data/tokens/text_file.h"

#include <archive.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/text.h"

namespace routescope::data {

struct TextFile::Source {
  virtual ~Source() = default;
  virtual std::string_view next() = 0;
};

namespace {

constexpr std::size_t piece_bytes = std::size_t{1} << 18;

std::size_t read_some(int descriptor, const std::string& name, std::span<unsigned char> out) {
  ssize_t count = -1;
  do count = ::read(descriptor, out.data(), out.size());
  while (count < 0 && errno == EINTR);
  if (count < 0) throw Error("{}: cannot read: {}", name, std::strerror(errno));
  return static_cast<std::size_t>(count);
}

/// gzip, by zlib: libarchive does not compare its checksums.
class GzipSource : public TextFile::Source {
 public:
  GzipSource(FileDescriptor file, std::string name) : file_(std::move(file)), name_(std::move(name)) {
    constexpr int gzip_of_any_window = 15 + 16;
    if (::inflateInit2(&stream_, gzip_of_any_window) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { ::inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  std::string_view next() override {
    stream_.next_out = out_.data();
    stream_.avail_out = static_cast<unsigned>(out_.size());
    while (stream_.avail_out == out_.size()) {
      if (stream_.avail_in == 0) {
        stream_.next_in = in_.data();
        stream_.avail_in = static_cast<unsigned>(read_some(file_.get(), name_, in_));
        if (stream_.avail_in == 0 && within_) damaged("it ends too early");
        if (stream_.avail_in == 0) break;
      }
      if (!std::exchange(within_, true)) ::inflateReset(&stream_);
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        within_ = false;
        whole_ = true;
      } else if (status != Z_OK) {
        damaged(stream_.msg ? stream_.msg : "unknown reason");
      }
    }
    const std::size_t count = out_.size() - stream_.avail_out;
    given_ += count;
    return {reinterpret_cast<const char*>(out_.data()), count};
  }

 private:
  [[noreturn]] void damaged(const std::string& reason) const {
    throw Error("{}: damaged gzip file after {} bytes of text{}: {}", name_, given_,
                whole_ && reason == "incorrect header check" ? ", which other bytes follow" : "", reason);
  }

  FileDescriptor file_;
  std::string name_;
  z_stream stream_{};
  bool within_ = false, whole_ = false;  // a member of the file; whether one was read to its end
  std::uintmax_t given_ = 0;
  std::vector<unsigned char> in_ = std::vector<unsigned char>(piece_bytes),
                             out_ = std::vector<unsigned char>(piece_bytes);
};

/// Plain, bzip2, xz or zstd, by libarchive.
class ArchiveSource : public TextFile::Source {
 public:
  ArchiveSource(FileDescriptor file, std::string name)
      : file_(std::move(file)), name_(std::move(name)), archive_(::archive_read_new(), ::archive_read_free) {
    if (!archive_) throw std::bad_alloc();
    ::archive_read_support_filter_bzip2(archive_.get());
    ::archive_read_support_filter_xz(archive_.get());
    ::archive_read_support_filter_zstd(archive_.get());
    ::archive_read_support_format_empty(archive_.get());
    ::archive_read_support_format_raw(archive_.get());
    archive_entry* entry = nullptr;
    const bool opened = ::archive_read_open_fd(archive_.get(), file_.get(), piece_bytes) == ARCHIVE_OK;
    const int status = opened ? ::archive_read_next_header(archive_.get(), &entry) : ARCHIVE_FATAL;
    if (status == ARCHIVE_EOF)
      ended_ = true;
    else if (status != ARCHIVE_OK)
      damaged();
  }

  std::string_view next() override {
    if (ended_) return {};
    const la_ssize_t count = ::archive_read_data(archive_.get(), out_.data(), out_.size());
    if (count < 0) damaged();
    if (count == 0) end();
    given_ += static_cast<std::uintmax_t>(count);
    return {out_.data(), static_cast<std::size_t>(count)};
  }

 private:
  [[noreturn]] void damaged() {
    const char* reason = ::archive_error_string(archive_.get());
    throw Error("{}: damaged {} file after {} bytes of text: {}", name_, filter(), given_,
                reason ? reason : "unknown reason");
  }
  void end() {
    ended_ = true;
    struct stat status {};
    const la_int64_t used = ::archive_filter_bytes(archive_.get(), -1);
    const bool compressed = ::archive_filter_code(archive_.get(), 0) != ARCHIVE_FILTER_NONE;
    if (compressed && ::fstat(file_.get(), &status) == 0 && used < status.st_size)
      throw Error("{}: offset {}: found {} bytes after the end of its {} data, expected none", name_, used,
                  status.st_size - used, filter());
  }
  std::string filter() const {
    const char* name = ::archive_filter_name(archive_.get(), 0);
    return name ? name : "compressed";
  }

  FileDescriptor file_;
  std::string name_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  bool ended_ = false;
  std::uintmax_t given_ = 0;
  std::vector<char> out_ = std::vector<char>(piece_bytes);
};

std::unique_ptr<TextFile::Source> open_source(const std::filesystem::path& file) {
  FileDescriptor opened = open_regular(file);
  std::array<unsigned char, 2> magic{};
  const bool gzip = ::pread(opened.get(), magic.data(), magic.size(), 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
  if (gzip) return std::make_unique<GzipSource>(std::move(opened), file.string());
  return std::make_unique<ArchiveSource>(std::move(opened), file.string());
}

}  // namespace

TextFile::TextFile(std::filesystem::path file, bool any_bytes)
    : file_(std::move(file)), any_bytes_(any_bytes), source_(open_source(file_)) {}

TextFile::~TextFile() = default;

void TextFile::refuse(std::int64_t offset, const std::string& found) const {
  throw Error("{}: offset {} of the text: found {}, expected text in UTF-8 (--any-bytes takes any file)",
              file_.string(), offset, found);
}

std::string_view TextFile::next() {
  const std::string_view piece = source_->next();
  if (!any_bytes_) check(piece);
  return piece;
}

void TextFile::check(std::string_view piece) {
  if (checked_ == 0) {
    if (piece.starts_with("\xff\xfe") || piece.starts_with("\xfe\xff")) refuse(0, "the mark of UTF-16");
    constexpr std::size_t tar_mark = 257;
    if (piece.size() > tar_mark && piece.substr(tar_mark).starts_with("ustar")) refuse(tar_mark, "a tar archive");
  }
  std::string joined;  // with the character that the last piece cut
  std::string_view text = piece;
  if (!cut_.empty()) text = joined = cut_ + std::string(piece);
  const std::int64_t begin = checked_ - static_cast<std::int64_t>(cut_.size());
  cut_.clear();
  checked_ += static_cast<std::int64_t>(piece.size());
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    refuse(begin + static_cast<std::int64_t>(nul), "a NUL byte");
  const auto bad = invalid_utf8(text);
  if (!bad) return;
  const std::string_view rest = text.substr(*bad);
  constexpr std::size_t longest = 4;
  if (!piece.empty() && rest.size() < longest && begins_utf8(rest))
    cut_ = rest;  // the next piece tells
  else
    refuse(begin + static_cast<std::int64_t>(*bad), fmt::format("byte 0x{:02x}", static_cast<unsigned char>(rest[0])));
}

}  // namespace routescope::data
