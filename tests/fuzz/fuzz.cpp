#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace routescope::fuzz {

namespace {

class Directory {
 public:
  Directory() {
    std::string name = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path().string();
    name += "/routescope-fuzz-XXXXXX";
    if (!::mkdtemp(name.data())) found("no directory for files");
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void write(int descriptor, std::string_view content) {
  if (descriptor < 0 || ::write(descriptor, content.data(), content.size()) != static_cast<ssize_t>(content.size()))
    found("cannot write an input into a file");
}

}  // namespace

void found(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

/// Defined by libFuzzer alone.
extern "C" __attribute__((weak)) int __libfuzzer_is_present;  // NOLINT(bugprone-reserved-identifier)

void check_message(const std::string& message) {
  if (message.empty() || message.size() > 1000)
    found("a refusal of " + std::to_string(message.size()) + " bytes: " + message.substr(0, 300));
  // libFuzzer learns the words from the comparisons here, and puts them into inputs that messages quote.
  if (&__libfuzzer_is_present) return;
  for (const char* words : {"json.exception", "std::", "basic_string", "vector::", "bad conversion"})
    if (message.find(words) != std::string::npos) found("a refusal with a library's words: " + message);
}

const std::filesystem::path& scratch_directory() {
  static const Directory directory;
  return directory.path();
}

data::FileDescriptor memory_file(std::string_view content) {
  data::FileDescriptor file(::memfd_create("fuzz", MFD_CLOEXEC));
  write(file.get(), content);
  return file;
}

std::filesystem::path scratch_file(const std::string& name, std::string_view content) {
  const std::filesystem::path file = scratch_directory() / name;
  const data::FileDescriptor descriptor(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  write(descriptor.get(), content);
  return file;
}

}  // namespace routescope::fuzz
