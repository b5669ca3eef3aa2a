// A library to preload: every reading of the calendar clock jumps by up to a day, forwards or backwards. Monotonic
// clocks do not change, because an administrator or NTP does not change them either.
#include <dlfcn.h>
#include <sys/time.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace {

std::time_t jump() {
  static std::atomic<std::uint64_t> state{1};
  const std::uint64_t x = state.fetch_add(0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
  return static_cast<std::time_t>(x >> 40) % (2 * 86400) - 86400;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  using Function = int (*)(clockid_t, timespec*);
  static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "clock_gettime"));
  const int status = real(clock, time);
  if (status == 0 && clock == CLOCK_REALTIME) time->tv_sec += jump();
  return status;
}

extern "C" int gettimeofday(timeval* time, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

extern "C" std::time_t time(std::time_t* out) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
