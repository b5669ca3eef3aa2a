#include "train/run/attempt.h"

#include <spdlog/spdlog.h>

#include <array>

#include "data/base/error.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/peer.h"
#include "train/plan/memory.h"
#include "train/plan/throughput.h"
#include "train/run/evaluate.h"

namespace routescope::train {

namespace {

using Clock = std::chrono::steady_clock;

/// Readers of the record see rows at most this much late.
constexpr std::chrono::milliseconds kFlushInterval{500};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

Attempt::Attempt(const TrainConfig& config, const LoopOptions& options, const Streams& streams,
                 kernels::Communicator& communicator, const StartPoint& start)
    : config_(config),
      options_(options),
      streams_(streams),
      communicator_(communicator),
      dir_(config.run.dir),
      state_(start.state),
      model_(start_model(config, communicator.size(), start.checkpoint)),
      optimizer_(model_, config.train.optimizer, communicator, config.distributed),
      gradients_(model_.options().storage, model_.options().device, {model_.layout().total()}),
      pass_(model_, config.train.micro_batch, config.data.sequence_length, model::Pass::Kind::train,
            config.pass_options()),
      recorder_(model_, find_probe_sequences(config, streams, start, communicator), config.data.sequence_length),
      writer_(dir_, model_, optimizer_, communicator,
              {.async = config.checkpoint.async == "on",
               .keep = config.checkpoint.keep,
               .keep_state = config.checkpoint.keep_state,
               .weights_dtype = config.checkpoint.weights_dtype == "bf16" ? kernels::DType::bf16 : kernels::DType::f32,
               .intact = start.checkpoint ? start.checkpoint->step : -1}),
      rank_times_(communicator.gather(kernels::this_peer().host.data(), "names of machines")),
      checkpoints_{config.checkpoint.every, config.checkpoint.log_spaced_until, config.train.steps},
      validations_{config.valid.every, 0, config.train.steps},
      snapshots_{config.routing.every, config.routing.log_spaced_until, config.train.steps},
      per_token_{config.routing.per_token_every, 0, config.train.steps} {
  kernels::agree(communicator_, "loading the state of the run", [&] {
    if (start.checkpoint) read_optimizer_state(*start.checkpoint, model_.layout(), optimizer_.state());
    if (first_rank()) record_ = start_record(dir_ / "routing.h5", recorder_.info(to_yaml(config_)), start.checkpoint);
  });
  if (start.checkpoint) checkpointed_ = state_.step;
}

std::optional<LoopResult> Attempt::run() {
  Progress progress(measure_totals());
  log_start(progress);
  if (state_.step == 0 && checkpointed_ < 0) observe(progress, std::nullopt);
  progress.begin();
  begin_ = {.time = Clock::now(), .traffic = communicator_.traffic(), .checkpoint_seconds = writer_.seconds_lost()};
  while (true) {
    const auto [stopped, data_lost] = exchange_votes();
    const bool ends = stopped != 0 || data_lost || state_.step == config_.train.steps;
    if (ends && checkpointed_ != state_.step) checkpoint();
    if (!ends) update(progress);
    if (ends || !failure_.empty()) {
      writer_.finish();
      if (!failure_.empty()) return std::nullopt;
      log_waiting();
      if (state_.step < config_.train.steps) report_input_error();
      return LoopResult{.step = state_.step, .stopped = state_.step == config_.train.steps ? 0 : stopped};
    }
  }
}

/// What progress is measured by. All ranks measure the matrix rate at the same time, as they will compute.
Progress::Totals Attempt::measure_totals() {
  double rate =
      options_.matrix_rate_seconds > 0 ? measure_matrix_rate(config_.model_options(), options_.matrix_rate_seconds) : 0;
  communicator_.all_reduce({&rate, 1}, kernels::Reduction::sum, "matrix rate");
  return {.first_step = state_.step,
          .last_step = config_.train.steps,
          .flops_per_token = flops_per_token(config_.model, config_.data.sequence_length),
          .matrix_rate = rate};
}

void Attempt::log_start(const Progress& progress) const {
  if (config_.device == "cuda")
    spdlog::info("{}\n{}", kernels::device_info().name, memory_table(memory_parts(config_, communicator_.size())));
  const int ranks = communicator_.size();
  spdlog::info("{}: {}, {:.2f} M parameters, {} steps of {} tokens{}", dir_.string(),
               model::to_string(config_.model.residual), static_cast<double>(model_.layout().count()) / 1e6,
               config_.train.steps, config_.train.tokens_per_step,
               ranks > 1 ? fmt::format(", {} ranks (distributed.zero={})", ranks, config_.distributed.zero) : "");
  if (const std::int64_t passes = config_.sequences_per_step() / config_.train.micro_batch; passes % ranks != 0) {
    spdlog::warn("{} micro-batches a step over {} ranks: some ranks compute {}, others compute {} and wait", passes,
                 ranks, passes / ranks + 1, passes / ranks);
  }
  if (const Progress::Totals& totals = progress.totals(); totals.matrix_rate > 0) {
    spdlog::info("matrix rate {:.0f} GFLOP/s ({}), {:.3g} FLOP a token", totals.matrix_rate / 1e9, config_.precision,
                 totals.flops_per_token);
  }
}

/// Logs what waiting for other ranks and writing checkpoints took.
void Attempt::log_waiting() const {
  const double seconds = seconds_since(begin_.time);
  if (communicator_.size() > 1 && seconds > 0) {
    const kernels::Communicator::Traffic traffic = communicator_.traffic();
    spdlog::info("waited {:.1f}% of the time for other ranks and for the {:.1f} MiB sent to them",
                 100 * (traffic.seconds_waited - begin_.traffic.seconds_waited) / seconds,
                 static_cast<double>(traffic.bytes - begin_.traffic.bytes) / (1 << 20));
    if (const std::string slowest = rank_times_.text(); !slowest.empty()) spdlog::info("{}", slowest);
  }
  const double lost = writer_.seconds_lost() - begin_.checkpoint_seconds;
  if (seconds > 0)
    spdlog::info("checkpoints took {:.1f} s of training, {:.1f}% of the time", lost, 100 * lost / seconds);
}

/// At the end of every step the ranks vote: whether to stop, how far their part of a checkpoint is, and whether their
/// data can no longer be read. The same on every rank.
Attempt::Votes Attempt::exchange_votes() {
  if (input_error_.empty()) {
    try {
      // The windows for validation are held in memory. But if their files have changed, no resume is possible.
      streams_.valid.check_unchanged();
    } catch (const data::Error& error) {
      input_error_ = error.what();
    }
  }
  std::array<double, 3> votes{static_cast<double>(options_.stop(state_.step)), static_cast<double>(writer_.vote()),
                              input_error_.empty() ? 0.0 : 1.0};
  communicator_.all_reduce(votes, kernels::Reduction::max, fmt::format("votes after step {}", state_.step));
  writer_.settle(static_cast<int>(votes[1]));
  return {.stop = static_cast<int>(votes[0]), .data_lost = votes[2] > 0};
}

/// After the last checkpoint of a run whose data can no longer be read on some rank. Throws its error on every rank.
void Attempt::report_input_error() {
  kernels::agree(communicator_, "reading the data", [this] {
    if (!input_error_.empty())
      throw data::Error("{}; stopped with a checkpoint of step {}", input_error_, checkpointed_);
  });
}

void Attempt::update(Progress& progress) {
  const Clock::time_point begin = Clock::now();
  const std::int64_t step = state_.step + 1;
  const double rate = learning_rate(config_.train, step);
  const StepResult result = train_step(
      model_, optimizer_, gradients_.tensor, pass_, streams_.train_batches, communicator_,
      {.step = step, .batch = state_.next_batch, .learning_rate = rate, .grad_clip = config_.train.grad_clip},
      {.meanwhile = [this] { write_snapshot(); }, .interrupted = options_.interrupted});
  input_error_ = result.input_error;
  if (result.outcome == StepOutcome::interrupted) return;
  const double seconds = seconds_since(begin);
  state_.step = step;
  ++state_.next_batch;
  state_.tokens_seen += config_.train.tokens_per_step;
  state_.skipped = result.outcome == StepOutcome::not_finite ? state_.skipped + 1 : 0;
  if (state_.skipped > 0) {
    spdlog::warn("step {}: skipped: the loss is {} and the gradient's norm {} ({} steps in a row)", step, result.loss,
                 result.grad_norm, state_.skipped);
  }
  data::TrainRow row = result;
  rank_times_.add(row);
  row.tokens_seen = state_.tokens_seen;
  row.tokens_per_second = static_cast<double>(config_.train.tokens_per_step) / seconds;
  row.seconds = seconds;
  if (first_rank()) {
    progress.update({.step = row.step,
                     .loss = row.loss,
                     .learning_rate = row.learning_rate,
                     .tokens_per_second = row.tokens_per_second});
  }
  // If the run is about to go back, the record of this step would be removed at once.
  if (state_.skipped <= config_.train.non_finite.skip) return observe(progress, row);
  failure_ =
      fmt::format("found loss {} and gradient norm {}, expected finite numbers; {} steps in a row were not finite",
                  result.loss, result.grad_norm, state_.skipped);
}

/// Writes what is due at this step. The order makes a crash at any point harmless: the record is durable before the
/// checkpoint of the same step begins.
void Attempt::observe(Progress& progress, const std::optional<data::TrainRow>& row) {
  if (row && record_) record_->append(*row);
  if (validations_.contains(state_.step)) {
    optimizer_.parameters().finish(pass_.stream());
    const double loss = mean_nll(pass_, streams_.valid_batches, streams_.valid_windows, communicator_);
    if (record_) record_->append(data::ValidRow{.step = state_.step, .loss = loss});
    progress.validated(loss);
  }
  measure_snapshot();
  // No checkpoint while steps are skipped: the run may have to go back behind them.
  if (checkpoints_.contains(state_.step) && state_.skipped == 0) {
    checkpoint();
  } else if (Clock::now() - flushed_ > kFlushInterval) {
    flush(false);
  }
}

void Attempt::measure_snapshot() {
  const bool per_token = config_.routing.per_token_every > 0 && per_token_.contains(state_.step);
  if (!snapshots_.contains(state_.step) && !per_token) return;
  optimizer_.parameters().finish(pass_.stream());
  snapshot_ = recorder_.snapshot(pass_, communicator_, state_.step, state_.tokens_seen, per_token ? &alpha_ : nullptr);
  if (!per_token) alpha_.clear();
}

/// Writes the last snapshot if it is not yet written. Called while a device computes the next step.
void Attempt::write_snapshot() {
  if (!snapshot_) return;
  if (record_) {
    record_->append(*snapshot_);
    if (!alpha_.empty()) record_->append_alpha(snapshot_->step, alpha_);
  }
  snapshot_.reset();
}

void Attempt::flush(bool sync) {
  if (record_) record_->flush(sync);
  flushed_ = Clock::now();
}

/// Begins a checkpoint of this step, unless its numbers are not finite: then nothing could go on from it, and failure_
/// says so.
void Attempt::checkpoint() {
  if (!optimizer_.finite(pass_.stream())) {
    failure_ =
        "found weights or optimizer state that are not finite after a finite loss and gradient, expected finite "
        "numbers";
    return;
  }
  kernels::agree(communicator_, fmt::format("the record up to step {}", state_.step), [this] {
    write_snapshot();
    flush(true);
  });
  writer_.begin(state_);
  // Training waits for the first checkpoint: a record with steps and no checkpoint cannot be resumed.
  if (state_.step == 0) writer_.finish();
  checkpointed_ = state_.step;
}

}  // namespace routescope::train
