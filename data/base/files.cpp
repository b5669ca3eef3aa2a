// Atomic writing, syncing, reading and hashing of files.
#include "data/base/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include "data/base/error.h"
#include "data/base/sha256.h"

namespace routescope::data {

namespace {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::unique_ptr<std::FILE, FileCloser> open_for_reading(const std::filesystem::path& file) {
  std::unique_ptr<std::FILE, FileCloser> in(std::fopen(file.c_str(), "rb"));
  if (!in) throw Error("{}: cannot open: {}", file.string(), std::strerror(errno));
  return in;
}

template <class Consume>
void read_pieces(const std::filesystem::path& file, Consume consume) {
  const auto in = open_for_reading(file);
  std::vector<char> piece(1 << 20);
  while (const std::size_t count = std::fread(piece.data(), 1, piece.size(), in.get())) consume(piece.data(), count);
  if (std::ferror(in.get())) throw Error("{}: cannot read: {}", file.string(), std::strerror(errno));
}

}  // namespace

namespace {

std::string partial_suffix() {
  return fmt::format(".{}.partial", ::getpid());
}

}  // namespace

std::filesystem::path partial_name(const std::filesystem::path& file) {
  return file.string() + partial_suffix();
}

std::filesystem::path final_name(const std::filesystem::path& file) {
  const std::string name = file.string(), suffix = partial_suffix();
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

void write_atomically(const std::filesystem::path& file,
                      const std::function<void(const std::filesystem::path&)>& write) {
  const auto partial = partial_name(file);
  try {
    write(partial);
    sync_path(partial);
    if (std::rename(partial.c_str(), file.c_str()) != 0)
      throw Error("{}: cannot rename to {}: {}", partial.string(), file.string(), std::strerror(errno));
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  sync_path(file.has_parent_path() ? file.parent_path() : ".");
}

void write_text_atomically(const std::filesystem::path& file, const std::string& text) {
  write_atomically(file, [&](const std::filesystem::path& partial) {
    std::unique_ptr<std::FILE, FileCloser> out(std::fopen(partial.c_str(), "wb"));
    if (!out) throw Error("{}: cannot create: {}", file.string(), std::strerror(errno));
    if (std::fwrite(text.data(), 1, text.size(), out.get()) != text.size() || std::fflush(out.get()) != 0)
      throw Error("{}: cannot write: {}", file.string(), std::strerror(errno));
  });
}

void sync_path(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error("{}: cannot open: {}", path.string(), std::strerror(errno));
  const int status = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  // Some file systems cannot sync directories; they have nothing to sync then.
  if (status != 0 && reason != EINVAL && reason != ENOTSUP)
    throw Error("{}: cannot sync: {}", path.string(), std::strerror(reason));
}

std::string read_text(const std::filesystem::path& file) {
  std::string out;
  read_pieces(file, [&](const char* piece, std::size_t count) { out.append(piece, count); });
  return out;
}

std::string sha256_file(const std::filesystem::path& file) {
  Sha256 sum;
  read_pieces(file, [&](const char* piece, std::size_t count) { sum.add(piece, count); });
  return sum.hex();
}

}  // namespace routescope::data
