#include "data/base/verified_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::data {

VerifiedFile::VerifiedFile(const std::filesystem::path& file)
    : file_(file), descriptor_(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) throw Error("{}: cannot create: {}", file.string(), std::strerror(errno));
}

VerifiedFile::~VerifiedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void VerifiedFile::append(const void* data, std::size_t bytes) {
  sum_.add(data, bytes);
  bytes_ += bytes;
  for (const auto* next = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t count = ::write(descriptor_, next, bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("{}: cannot write: {}", file_.string(), std::strerror(errno));
    next += count;
    bytes -= static_cast<std::size_t>(count);
  }
}

ManifestEntry VerifiedFile::finish() {
  // A network file system may report only here that there is no space or quota left.
  if (::fsync(descriptor_) != 0) throw Error("{}: cannot sync: {}", file_.string(), std::strerror(errno));
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
  const int status = ::close(descriptor_);
  descriptor_ = -1;
  if (status != 0) throw Error("{}: cannot close: {}", file_.string(), std::strerror(errno));
  const ManifestEntry written{file_.filename().string(), bytes_, sum_.hex()};
  verify_entry(file_.parent_path(), written, "what was written");
  return written;
}

}  // namespace routescope::data
