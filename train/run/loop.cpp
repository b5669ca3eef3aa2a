#include "train/run/loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "data/base/error.h"
#include "kernels/comm/agree.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/config/run_directory.h"
#include "train/run/attempt.h"
#include "train/run/start.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

/// How often a run has gone back to a checkpoint.
struct RollBacks {
  std::int64_t step = -1;  // of the checkpoint; -1: the run has not gone back
  std::int64_t count = 0;  // in a row, to this checkpoint
};

/// Counts one more return to `start`, after an attempt that ended at `end` with `failure`. Throws AgreedError if there
/// is no checkpoint or if the run went back to it too often.
RollBacks roll_back(const TrainConfig& config, const RollBacks& before, const std::string& failure,
                    const TrainState& end, const StartPoint& start) {
  RollBacks now{.step = start.checkpoint ? start.checkpoint->step : -1, .count = 1};
  if (now.step == before.step) now.count = before.count + 1;
  if (!start.checkpoint || now.count > config.train.non_finite.roll_back) {
    throw kernels::AgreedError(fmt::format(
        "step {}: {}{}. The record and earlier checkpoints stay (a lower train.optimizer.learning_rate or "
        "train.grad_clip, or a larger train.optimizer.eps may help)",
        end.step, failure,
        before.count > 0 ? fmt::format(", after going back {} times to step {}", before.count, before.step) : ""));
  }
  spdlog::warn("step {}: {}: back to the checkpoint of step {} (time {} of {}), on with batch {}", end.step, failure,
               now.step, now.count, config.train.non_finite.roll_back, end.next_batch);
  return now;
}

/// Trains from `start` to the end of the run or a stop, over any number of returns to a checkpoint.
LoopResult train_from(StartPoint start, const TrainConfig& config, const Streams& streams,
                      kernels::Communicator& communicator, const LoopOptions& options) {
  RollBacks roll_backs;
  while (true) {
    std::optional<Attempt> attempt(std::in_place, config, options, streams, communicator, start);
    const kernels::QuietUnwinding quiet(communicator);
    if (const std::optional<LoopResult> result = attempt->run()) return *result;
    const TrainState end = attempt->state();
    const std::string failure = attempt->failure();
    attempt.reset();  // releases memory, and the record
    // Checkpoints that a stop wrote between skipped steps are not considered: the steps before them failed, too.
    start = find_start(config, streams, communicator, end.step - end.skipped);
    roll_backs = roll_back(config, roll_backs, failure, end, start);
    start.state.next_batch = std::max(start.state.next_batch, end.next_batch);  // failed batches are not tried again
    // The record will be cut back to this checkpoint: no later one may be resumed from.
    kernels::agree(communicator, "going back", [&] {
      if (communicator.rank() == 0) remove_checkpoints_after(config.run.dir, start.checkpoint->step);
    });
  }
}

}  // namespace

LoopResult run_training(const TrainConfig& config, kernels::Communicator& communicator, const LoopOptions& options) {
  const fs::path dir = config.run.dir;
  const bool first = communicator.rank() == 0;
  apply_settings(config.kernels);

  // First all checks, so that an error leaves the run directory as it was.
  const std::string first_ranks_config = communicator.broadcast(to_yaml(config), "configuration");
  std::optional<Streams> streams;
  kernels::agree(communicator, "configuration and data", [&] {
    check_ranks(config, first_ranks_config, communicator.place());
    streams.emplace(config);
  });
  std::optional<RunLock> lock;
  std::optional<TrainConfig> held;
  kernels::agree(communicator, "run directory", [&] {
    if (!first) return;
    lock.emplace(dir);
    check_config(dir, config);
    held = held_config(dir);
  });
  const StartPoint start = find_start(config, *streams, communicator);

  std::string changed;
  kernels::agree(communicator, "run directory", [&] {
    if (!first) return;
    if (start.checkpoint)
      changed = text_of_changed_sums(held, ranks_of_state(*start.checkpoint), config, communicator.size());
    write_config(dir, config);
    remove_debris(dir);
    if (start.checkpoint) set_aside_checkpoints_after(dir, start.checkpoint->step);
  });
  if (start.checkpoint && start.checkpoint->step >= config.train.steps) {
    kernels::agree(communicator, "the record of a finished run", [&] {
      if (first) check_record(dir / "routing.h5", start.checkpoint->step);
    });
    spdlog::info("{}: finished, {} steps", dir.string(), start.checkpoint->step);
    return {.step = start.checkpoint->step};
  }
  if (start.checkpoint)
    spdlog::info("{}: resuming after step {} of {}", dir.string(), start.checkpoint->step, config.train.steps);
  if (!changed.empty()) spdlog::warn("{}", changed);
  LoopOptions locked = options;
  locked.stop = [&](std::int64_t step) {
    if (lock) lock->check();
    return options.stop(step);
  };
  return train_from(start, config, *streams, communicator, locked);
}

LoopResult run_training(const TrainConfig& config, const LoopOptions& options) {
  return run_training(config, *kernels::single_communicator(), options);
}

}  // namespace routescope::train
