// SIGINT, SIGTERM and SIGUSR1 as a question that the loop asks, never as an interruption of what a thread is doing.
#pragma once

namespace routescope::train {

/// Blocks the signals in this thread and in all that it starts from now on, and leaves them to a thread that waits for
/// them; call it before any other thread exists. The first signal asks for a checkpoint and an end. Later ones change
/// nothing, as launchers and Slurm send several, but for a second SIGINT: it ends the process at once, which loses only
/// the steps since the last checkpoint.
///
/// No handler may run on a thread that computes: oneDNN's f32 products (seen with 2.6.3) use memory where the kernel
/// puts a handler's frame, and a process whose handler does nothing died of it after 33 signals.
void wait_for_signals_aside();

/// The first signal that came, or 0.
int received_signal();

}  // namespace routescope::train
