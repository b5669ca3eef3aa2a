#include "train/run/loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <optional>

#include "data/base/error.h"
#include "data/records/routing_record.h"
#include "kernels/comm/agree.h"
#include "model/pass/pass.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/schedule.h"
#include "train/plan/plan.h"
#include "train/plan/throughput.h"
#include "train/run/evaluate.h"
#include "train/run/progress.h"
#include "train/run/recorder.h"
#include "train/run/run_directory.h"
#include "train/run/start.h"
#include "train/run/step.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

/// Readers of the record see rows at most this much late.
constexpr std::chrono::milliseconds kFlushInterval{500};

/// What the next attempt takes over from one that went back to a checkpoint.
struct RollBack {
  std::int64_t to = -1;          // the checkpoint's step; -1: the run has not gone back
  std::int64_t times = 0;        // in a row, to this checkpoint
  std::int64_t next_batch = -1;  // the batches before it are not tried again
};

/// Everything a step needs, taken up where the run directory stands.
class Loop {
 public:
  Loop(const TrainConfig& config, const LoopOptions& options, Streams& streams, kernels::Communicator& communicator,
       const std::optional<data::CheckpointEntry>& checkpoint, const TrainState& state)
      : config_(config),
        options_(options),
        streams_(streams),
        communicator_(communicator),
        dir_(config.run.dir),
        state_(state),
        model_(start_model(config, communicator.size(), checkpoint)),
        optimizer_(model_, config.train.optimizer, communicator, config.distributed),
        gradients_(model_.options().storage, model_.options().device, {model_.layout().total()}),
        pass_(model_, config.train.micro_batch, config.data.sequence_length, model::Pass::Kind::train,
              config.pass_options()),
        recorder_(model_, streams.valid_batches, config.routing.sequences, config.data.sequence_length),
        writer_(dir_, model_, optimizer_, communicator,
                {.async = config.checkpoint.async == "on",
                 .keep = config.checkpoint.keep,
                 .intact = checkpoint ? checkpoint->step : -1}),
        checkpoints_{config.checkpoint.every, config.checkpoint.log_spaced_until, config.train.steps},
        validations_{config.valid.every, 0, config.train.steps},
        snapshots_{config.routing.every, config.routing.log_spaced_until, config.train.steps},
        per_token_{config.routing.per_token_every, 0, config.train.steps} {
    kernels::agree(communicator_, "taking up the run", [&] {
      if (checkpoint) read_moments(*checkpoint, model_, optimizer_);
      if (communicator_.rank() == 0) open_record(checkpoint);
    });
    if (checkpoint) checkpointed_ = state_.step;
  }

  /// Up to the end, to a stop, or to where the run must go back: nothing is returned then.
  std::optional<LoopResult> run() {
    Progress progress(totals());
    announce(progress);
    if (state_.step == 0 && checkpointed_ < 0) observe(progress, std::nullopt);
    progress.begin();
    began_ = std::chrono::steady_clock::now();
    before_ = {.traffic = communicator_.traffic(), .checkpoints = writer_.seconds_lost()};
    for (;;) {
      const int stopped = exchange_votes();
      if (stopped != 0 || state_.step == config_.train.steps) {
        if (checkpointed_ != state_.step) checkpoint();
        writer_.finish();
        say_what_waiting_took();
        return LoopResult{.step = state_.step, .stopped = state_.step == config_.train.steps ? 0 : stopped};
      }
      const StepResult result = update(progress);
      if (result.outcome == StepOutcome::not_finite && state_.skipped > config_.train.non_finite.skip) {
        writer_.finish();
        return std::nullopt;
      }
    }
  }

  /// Where the run stands, also after it could not go on.
  const TrainState& state() const { return state_; }
  const StepResult& last_result() const { return last_result_; }

 private:
  bool first_rank() const { return communicator_.rank() == 0; }

  void open_record(const std::optional<data::CheckpointEntry>& checkpoint) {
    const fs::path file = dir_ / "routing.h5";
    const data::RoutingRecordInfo info = recorder_.info(to_yaml(config_));
    record_ = checkpoint ? data::RoutingRecord::resume(file, info, checkpoint->step) : start_record(file, info);
  }

  /// The matrix rate is measured by all ranks at once, as they will compute.
  Progress::Totals totals() {
    double rate = options_.matrix_rate_seconds > 0
                      ? measure_matrix_rate(config_.model_options(), options_.matrix_rate_seconds)
                      : 0;
    communicator_.all_reduce({&rate, 1}, kernels::Reduction::sum, "matrix rate");
    return {.first_step = state_.step,
            .last_step = config_.train.steps,
            .flops_per_token = flops_per_token(config_.model, config_.data.sequence_length),
            .matrix_rate = rate};
  }

  void announce(const Progress& progress) const {
    if (config_.device == "cuda")
      spdlog::info("{}\n{}", kernels::device_info().name, memory_table(memory_parts(config_, communicator_.size())));
    const int ranks = communicator_.size();
    spdlog::info("{}: {}, {:.2f} M parameters, {} steps of {} tokens{}", dir_.string(),
                 model::to_string(config_.model.residual), static_cast<double>(model_.layout().count()) / 1e6,
                 config_.train.steps, config_.train.tokens_per_step,
                 ranks > 1 ? fmt::format(", {} ranks (distributed.zero={})", ranks, config_.distributed.zero) : "");
    if (const std::int64_t passes = config_.sequences_per_step() / config_.train.micro_batch; passes % ranks != 0) {
      spdlog::warn("{} micro-batches a step over {} ranks: some compute {}, others {} and wait", passes, ranks,
                   passes / ranks + 1, passes / ranks);
    }
    if (const Progress::Totals& totals = progress.totals(); totals.matrix_rate > 0) {
      spdlog::info("matrix rate {:.0f} GFLOP/s ({}), {:.3g} FLOP a token", totals.matrix_rate / 1e9, config_.precision,
                   totals.flops_per_token);
    }
  }

  /// At the end of every step all ranks learn what asks any of them to stop, and how far checkpoints are.
  int exchange_votes() {
    std::array<double, 2> votes{static_cast<double>(options_.stop(state_.step)), static_cast<double>(writer_.vote())};
    communicator_.all_reduce(votes, kernels::Reduction::max, fmt::format("votes after step {}", state_.step));
    writer_.settle(static_cast<int>(votes[1]));
    return static_cast<int>(votes[0]);
  }

  StepResult update(Progress& progress) {
    const auto begin = std::chrono::steady_clock::now();
    const std::int64_t step = state_.step + 1;
    const double rate = learning_rate(config_.train, step);
    const StepResult result = last_result_ = train_step(
        model_, optimizer_, gradients_.tensor, pass_, streams_.train_batches, communicator_,
        {.step = step, .batch = state_.next_batch, .learning_rate = rate, .grad_clip = config_.train.grad_clip},
        {.meanwhile = [this] { write_snapshot(); }, .interrupted = options_.interrupted});
    if (result.outcome == StepOutcome::interrupted) return result;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state_.step = step;
    ++state_.next_batch;
    state_.tokens_seen += config_.train.tokens_per_step;
    state_.skipped = result.outcome == StepOutcome::not_finite ? state_.skipped + 1 : 0;
    if (state_.skipped > 0) {
      spdlog::warn("step {}: loss is {} and the gradient's norm {}: the update is left out ({} in a row)", step,
                   result.loss, result.grad_norm, state_.skipped);
    }
    const data::TrainRow row{.step = step,
                             .tokens_seen = state_.tokens_seen,
                             .loss = result.loss,
                             .learning_rate = rate,
                             .grad_norm = result.grad_norm,
                             .tokens_per_second = static_cast<double>(config_.train.tokens_per_step) / seconds,
                             .seconds = seconds};
    if (first_rank()) {
      progress.update({.step = row.step,
                       .loss = row.loss,
                       .learning_rate = row.learning_rate,
                       .tokens_per_second = row.tokens_per_second});
    }
    // A run that is about to go back has no use for what it would see here.
    if (state_.skipped <= config_.train.non_finite.skip) observe(progress, row);
    return result;
  }

  /// What is written at a step, in the order that makes a crash anywhere harmless.
  void observe(Progress& progress, const std::optional<data::TrainRow>& row) {
    if (row && record_) record_->append(*row);
    if (validations_.contains(state_.step)) {
      optimizer_.finish(pass_.stream());  // parameters may be under way between ranks
      const double loss = mean_nll(pass_, streams_.valid_batches, streams_.valid_windows, communicator_);
      if (record_) record_->append(data::ValidRow{.step = state_.step, .loss = loss});
      progress.validated(loss);
    }
    const bool per_token = config_.routing.per_token_every > 0 && per_token_.contains(state_.step);
    if (snapshots_.contains(state_.step) || per_token) {
      optimizer_.finish(pass_.stream());
      snapshot_ =
          recorder_.snapshot(pass_, communicator_, state_.step, state_.tokens_seen, per_token ? &alpha_ : nullptr);
      if (!per_token) alpha_.clear();
    }
    // Not amid steps that were left out: the run may have to go back behind them.
    if (checkpoints_.contains(state_.step) && state_.skipped == 0) {
      checkpoint();
    } else if (std::chrono::steady_clock::now() - flushed_ > kFlushInterval) {
      flush(false);
    }
  }

  /// What observe() measured last, if that is not written yet: the device computes the next step meanwhile.
  void write_snapshot() {
    if (!snapshot_) return;
    if (record_) {
      record_->append(*snapshot_);
      if (!alpha_.empty()) record_->append_alpha(snapshot_->step, alpha_);
    }
    snapshot_.reset();
  }

  void flush(bool sync) {
    if (record_) record_->flush(sync);
    flushed_ = std::chrono::steady_clock::now();
  }

  void checkpoint() {
    kernels::agree(communicator_, fmt::format("the record up to step {}", state_.step), [this] {
      write_snapshot();
      flush(true);
    });
    writer_.begin(state_);
    // A record must never hold steps of a run that has no checkpoint to resume from.
    if (state_.step == 0) writer_.finish();
    checkpointed_ = state_.step;
  }

  void say_what_waiting_took() const {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    if (communicator_.size() > 1 && seconds > 0) {
      const kernels::Communicator::Traffic traffic = communicator_.traffic();
      spdlog::info("waited {:.1f}% of the time for other ranks and for {:.1f} MiB that went to them",
                   100 * (traffic.seconds_waited - before_.traffic.seconds_waited) / seconds,
                   static_cast<double>(traffic.bytes - before_.traffic.bytes) / (1 << 20));
    }
    const double lost = writer_.seconds_lost() - before_.checkpoints;
    if (seconds > 0)
      spdlog::info("checkpoints took {:.1f} s of training, {:.1f}% of the time", lost, 100 * lost / seconds);
  }

  const TrainConfig& config_;
  const LoopOptions& options_;
  const Streams& streams_;
  kernels::Communicator& communicator_;
  fs::path dir_;
  TrainState state_;
  std::int64_t checkpointed_ = -1;  // the step of the newest checkpoint
  StepResult last_result_;
  model::Model model_;
  AdamW optimizer_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  RoutingRecorder recorder_;
  CheckpointWriter writer_;
  std::optional<data::RoutingRecord> record_;  // rank 0's
  StepSchedule checkpoints_, validations_, snapshots_, per_token_;
  std::optional<data::RoutingSnapshot> snapshot_;  // measured and not yet written
  std::vector<float> alpha_;                       // its weights token by token, or empty
  struct {
    kernels::Communicator::Traffic traffic;
    double checkpoints = 0;                                // seconds
  } before_;                                               // what the start took
  std::chrono::steady_clock::time_point flushed_, began_;  // when readers last got to see new rows; when steps began
};

/// Where a run goes on that met `skipped` steps in a row which were not finite, or an error if it has gone back often
/// enough.
RollBack roll_back(const TrainConfig& config, const RollBack& before, const StepResult& result, const TrainState& at,
                   const std::optional<data::CheckpointEntry>& checkpoint) {
  RollBack next{.to = checkpoint ? checkpoint->step : -1, .times = 1, .next_batch = at.next_batch};
  if (next.to == before.to) next.times = before.times + 1;
  if (!checkpoint || next.times > config.train.non_finite.roll_back) {
    throw kernels::AgreedError(fmt::format(
        "step {}: loss is {} and the gradient's norm {}, expected finite numbers; {} in a row were not{}: the run "
        "stops with what was written before them (a lower train.optimizer.learning_rate or train.grad_clip may help)",
        at.step, result.loss, result.grad_norm, at.skipped,
        before.times > 0 ? fmt::format(", after going back {} times to step {}", before.times, before.to) : ""));
  }
  spdlog::warn(
      "{} steps in a row were not finite: going back to the checkpoint of step {} (time {} of {}), on to batch {}",
      at.skipped, next.to, next.times, config.train.non_finite.roll_back, next.next_batch);
  return next;
}

}  // namespace

LoopResult run_training(const TrainConfig& config, kernels::Communicator& communicator, const LoopOptions& options) {
  const fs::path dir = config.run.dir;
  const bool first = communicator.rank() == 0;
  apply_settings(config.kernels);
  const std::string first_ranks_config = communicator.broadcast(to_yaml(config), "configuration");
  std::optional<Streams> streams;  // before anything is written: bad data leave no run directory behind
  kernels::agree(communicator, "configuration and data", [&] {
    check_ranks(config, first_ranks_config, communicator.place());
    streams.emplace(config);
  });
  std::optional<RunLock> lock;
  kernels::agree(communicator, "run directory", [&] {
    if (!first) return;
    lock.emplace(dir);
    check_config(dir, config);
  });
  TrainState state;
  std::optional<data::CheckpointEntry> checkpoint = find_checkpoint(config, *streams, communicator, state);
  // It is this run: from here on things are written.
  agree(communicator, "run directory", [&] {
    if (!first) return;
    write_config(dir, config);
    remove_debris(dir);
    if (checkpoint) set_aside_after(dir, checkpoint->step);
  });
  if (checkpoint && checkpoint->step >= config.train.steps) {
    spdlog::info("{}: finished, {} steps", dir.string(), checkpoint->step);
    return {.step = checkpoint->step};
  }
  if (checkpoint) spdlog::info("{}: resuming after step {} of {}", dir.string(), checkpoint->step, config.train.steps);
  for (RollBack back;;) {
    std::optional<Loop> loop(std::in_place, config, options, *streams, communicator, checkpoint, state);
    const kernels::QuietUnwinding quiet(communicator);
    if (const std::optional<LoopResult> result = loop->run()) return *result;
    const TrainState reached = loop->state();
    const StepResult last = loop->last_result();
    loop.reset();  // its memory, and its record
    // One that a stop left amid the steps in question is no better than they are.
    checkpoint = find_checkpoint(config, *streams, communicator, state, reached.step - reached.skipped);
    back = roll_back(config, back, last, reached, checkpoint);
    state.next_batch = std::max(state.next_batch, back.next_batch);
    // What lies ahead belongs to the steps that are given up: nothing may resume from it once the record is cut.
    agree(communicator, "going back", [&] {
      if (first) remove_checkpoints_after(dir, checkpoint->step);
    });
  }
}

LoopResult run_training(const TrainConfig& config, const LoopOptions& options) {
  return run_training(config, *kernels::single_communicator(), options);
}

}  // namespace routescope::train
