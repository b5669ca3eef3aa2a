#include "train/run/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

namespace routescope::train {

namespace {

std::atomic<int> received = 0;

}  // namespace

void start_signal_thread() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    for (int interrupts = 0;;) {
      int number = 0;
      sigwait(&signals, &number);
      if (received == 0) received = number;
      if (number == SIGINT && ++interrupts == 2) ::_exit(128 + number);
    }
  }).detach();
}

int received_signal() {
  return received;
}

}  // namespace routescope::train
