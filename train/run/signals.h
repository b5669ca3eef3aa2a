// Signals that ask a run to stop: a thread of its own receives them, and the training loop asks whether one came.
#pragma once

namespace routescope::train {

/// Blocks SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU, except those that the process was started to ignore
/// (nohup), in the calling thread and in all threads that it starts later, and starts a thread that waits for them.
/// Call it before any other thread exists. Before the first call of received_signal(), a signal ends the process at
/// once with status 128 + its number: there is nothing to save. After it, the first signal asks for a checkpoint and an
/// end. Later ones change nothing, because launchers and Slurm send several; only a second SIGINT ends the process at
/// once, which loses the steps since the last checkpoint.
///
/// Signal handlers must not run on a thread that computes: oneDNN's f32 products (seen with 2.6.3) use the memory where
/// the kernel puts a handler's stack frame. A process whose handler did nothing crashed after 33 signals.
void start_signal_thread();

/// The first signal that was received, or 0. For the training loop.
int received_signal();

}  // namespace routescope::train
