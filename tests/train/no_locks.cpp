// A library to preload: a file system without locks. flock() fails with ROUTESCOPE_TEST_FLOCK_ERRNO.
#include <sys/file.h>

#include <cerrno>
#include <cstdlib>

extern "C" int flock(int, int) noexcept {
  const char* reason = std::getenv("ROUTESCOPE_TEST_FLOCK_ERRNO");
  errno = reason ? std::atoi(reason) : ENOSYS;
  return -1;
}
