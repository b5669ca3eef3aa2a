#include "train/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

namespace routescope {

namespace {

std::atomic<int> received = 0;

}  // namespace

void wait_for_signals_aside() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    int number = 0;
    sigwait(&signals, &number);
    received = number;
    sigwait(&signals, &number);
    ::_exit(128 + number);
  }).detach();
}

int received_signal() {
  return received;
}

}  // namespace routescope
