#include "train/run/signals.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>

namespace routescope::train {

namespace {

std::atomic<int> received = 0;
std::atomic<bool> asked = false;  // the training loop asks for signals

/// Says on standard error why the process ends. Any thread may hold the logger's lock, so it is not used.
void say_stopped(int number) {
  const std::string line = fmt::format(
      "routescope-train: stopped by signal {} before the first step; the same command starts again\n", number);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void start_signal_thread() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    // A signal that is ignored (nohup, a shell's background job) stays ignored; while blocked it would be received.
    struct sigaction action {};
    if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&signals, number);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    for (int interrupts = 0;;) {
      int number = 0;
      sigwait(&signals, &number);
      if (received == 0) received = number;
      if (!asked) {
        say_stopped(number);
        ::_exit(128 + number);
      }
      if (number == SIGINT && ++interrupts == 2) ::_exit(128 + number);
    }
  }).detach();
}

int received_signal() {
  asked = true;
  return received;
}

}  // namespace routescope::train
