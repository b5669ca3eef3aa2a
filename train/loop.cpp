#include "train/loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/batches.h"
#include "data/error.h"
#include "data/routing_record.h"
#include "data/shard.h"
#include "kernels/attention_kernel.h"
#include "kernels/cuda/products.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/plan.h"
#include "train/progress.h"
#include "train/recorder.h"
#include "train/run_directory.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/throughput.h"

namespace routescope {

namespace fs = std::filesystem;

namespace {

/// Readers of the record see rows at most this much late.
constexpr std::chrono::milliseconds kFlushInterval{500};

/// The data of a run, checked against the vocabulary.
struct Streams {
  explicit Streams(const TrainConfig& config)
      : train(config.data.train, config.model.vocab_size),
        valid(config.data.valid, config.model.vocab_size),
        train_batches(train, config.data.sequence_length, config.sequences_per_step(),
                      static_cast<std::uint64_t>(config.run.seed)),
        valid_batches(valid, config.data.sequence_length, 1, static_cast<std::uint64_t>(config.run.seed)),
        valid_windows(std::min(config.valid.tokens / config.data.sequence_length, valid_batches.windows())) {
    if (valid_batches.windows() < config.routing.sequences) {
      throw Error("routing.sequences: found {}, expected at most {}: data.valid holds no more windows of {} tokens",
                  config.routing.sequences, valid_batches.windows(), config.data.sequence_length);
    }
    if (const std::int64_t asked = config.valid.tokens / config.data.sequence_length; asked > valid_windows) {
      spdlog::warn("valid.tokens: found {}, but data.valid holds {} windows of {} tokens: all of them are used",
                   config.valid.tokens, valid_windows, config.data.sequence_length);
    }
  }

  TokenStream train, valid;
  Batches train_batches, valid_batches;
  std::int64_t valid_windows;  // that validation takes
};

TrainState state_after(std::int64_t step, const TrainConfig& config, const Streams& streams) {
  return {.step = step,
          .next_batch = step,
          .tokens_seen = step * config.train.tokens_per_step,
          .seed = config.run.seed,
          .train_fingerprint = streams.train.fingerprint(),
          .valid_fingerprint = streams.valid.fingerprint()};
}

/// Refuses a checkpoint of other data or another seed.
void check_same_run(const TrainState& state, const TrainState& expected, const fs::path& dir) {
  const auto check = [&dir](const char* key, const auto& found, const auto& wanted) {
    if (found != wanted) {
      throw Error("{}: {}: found {}, expected {}: this directory holds another run (use another run.dir)", dir.string(),
                  key, wanted, found);
    }
  };
  check("run.seed", state.seed, expected.seed);
  check("data.train (fingerprint)", state.train_fingerprint, expected.train_fingerprint);
  check("data.valid (fingerprint)", state.valid_fingerprint, expected.valid_fingerprint);
  check("tokens_seen", state.tokens_seen, expected.tokens_seen);
}

/// The initial model or the checkpoint's.
Model start_model(const TrainConfig& config, const std::optional<CheckpointEntry>& checkpoint) {
  if (!checkpoint) {
    Model model(config.model, config.model_options());
    model.initialize(static_cast<std::uint64_t>(config.run.seed));
    return model;
  }
  Model model = Model::load(checkpoint->dir, config.model_options());
  if (model.config().to_json() != config.model.to_json()) {
    throw Error("{}: config.json: found another model than config.yaml describes, expected the same",
                checkpoint->dir.string());
  }
  return model;
}

/// A record for a run that starts at its first step. One that a process killed before its first checkpoint left is
/// replaced: it holds nothing but the initial model.
RoutingRecord start_record(const fs::path& file, const RoutingRecordInfo& info) {
  if (fs::exists(file)) {
    const std::size_t rows = RoutingRecordView::load(file).train.size();
    if (rows > 0) {
      throw Error("{}: found the record of {} training steps and no checkpoint, expected a checkpoint to resume from",
                  file.string(), rows);
    }
    fs::remove(file);
  }
  return RoutingRecord::create(file, info);
}

/// The settings of kernels that hold for the process.
void apply_settings(const TrainConfig::Kernels& kernels) {
  const std::map<std::string, AttentionKernel> choices{
      {"auto", AttentionKernel::automatic}, {"builtin", AttentionKernel::builtin}, {"cudnn", AttentionKernel::cudnn}};
  set_attention_kernel(choices.at(kernels.attention));
  cuda::set_product_tuning(kernels.tune_products == "on");
}

/// Everything a step needs, taken up where the run directory stands.
class Loop {
 public:
  Loop(const TrainConfig& config, const LoopOptions& options, Streams& streams,
       const std::optional<CheckpointEntry>& checkpoint)
      : config_(config),
        options_(options),
        streams_(streams),
        dir_(config.run.dir),
        state_(state_after(checkpoint ? checkpoint->step : 0, config, streams)),
        model_(start_model(config, checkpoint)),
        optimizer_(model_, config.train.optimizer, *communicator_, config.distributed),
        writer_(dir_, model_, optimizer_, *communicator_, {.async = false, .keep = config.checkpoint.keep}),
        gradients_(model_.options().storage, model_.options().device, {model_.layout().total()}),
        pass_(model_, config.train.micro_batch, config.data.sequence_length, Pass::Kind::train, config.pass_options()),
        recorder_(model_, streams.valid_batches, config.routing.sequences, config.data.sequence_length),
        record_(open_record(checkpoint)),
        checkpoints_{config.checkpoint.every, config.checkpoint.log_spaced_until, config.train.steps},
        validations_{config.valid.every, 0, config.train.steps},
        snapshots_{config.routing.every, config.routing.log_spaced_until, config.train.steps},
        per_token_{config.routing.per_token_every, 0, config.train.steps} {
    if (checkpoint) read_moments(*checkpoint, model_, optimizer_);
  }

  LoopResult run() {
    const Progress::Totals totals{
        .first_step = state_.step,
        .last_step = config_.train.steps,
        .flops_per_token = flops_per_token(config_.model, config_.data.sequence_length),
        .matrix_rate = options_.matrix_rate_seconds > 0
                           ? measure_matrix_rate(config_.model_options(), options_.matrix_rate_seconds)
                           : 0};
    Progress progress(totals);
    if (config_.device == "cuda") spdlog::info("{}\n{}", device_info().name, memory_table(memory_parts(config_)));
    spdlog::info("{}: {}, {:.2f} M parameters, {} steps of {} tokens", dir_.string(), to_string(config_.model.residual),
                 static_cast<double>(model_.layout().count()) / 1e6, config_.train.steps,
                 config_.train.tokens_per_step);
    if (totals.matrix_rate > 0) {
      spdlog::info("matrix rate {:.0f} GFLOP/s ({}), {:.3g} FLOP a token", totals.matrix_rate / 1e9, config_.precision,
                   totals.flops_per_token);
    }
    if (state_.step == 0 && !resumed_) observe(progress, std::nullopt);
    progress.begin();
    for (;;) {
      const int stopped = options_.stop(state_.step);
      if (stopped != 0 || state_.step == config_.train.steps) {
        if (checkpointed_ != state_.step) checkpoint();
        return {.step = state_.step, .stopped = state_.step == config_.train.steps ? 0 : stopped};
      }
      const TrainRow row = update();
      progress.update({.step = row.step,
                       .loss = row.loss,
                       .learning_rate = row.learning_rate,
                       .tokens_per_second = row.tokens_per_second});
      observe(progress, row);
    }
  }

 private:
  RoutingRecord open_record(const std::optional<CheckpointEntry>& checkpoint) {
    const fs::path file = dir_ / "routing.h5";
    const RoutingRecordInfo info = recorder_.info(to_yaml(config_));
    if (!checkpoint) return start_record(file, info);
    resumed_ = true;
    checkpointed_ = checkpoint->step;
    return RoutingRecord::resume(file, info, checkpoint->step);
  }

  TrainRow update() {
    const auto begin = std::chrono::steady_clock::now();
    const std::int64_t step = state_.step + 1;
    const double rate = learning_rate(config_.train, step);
    const StepResult result = train_step(
        model_, optimizer_, gradients_.tensor, pass_, streams_.train_batches, *communicator_,
        {.step = step, .batch = state_.next_batch, .learning_rate = rate, .grad_clip = config_.train.grad_clip},
        {.meanwhile = [this] { write_snapshot(); }});
    if (result.outcome == StepOutcome::not_finite) {
      throw Error(
          "step {}: loss is {} and the gradient's norm {}, expected finite numbers; the run stops with what was "
          "written before this step (a lower train.optimizer.learning_rate or train.grad_clip may help)",
          step, result.loss, result.grad_norm);
    }
    ++state_.next_batch;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state_.step = step;
    state_.tokens_seen += config_.train.tokens_per_step;
    return {.step = step,
            .tokens_seen = state_.tokens_seen,
            .loss = result.loss,
            .learning_rate = rate,
            .grad_norm = result.grad_norm,
            .tokens_per_second = static_cast<double>(config_.train.tokens_per_step) / seconds,
            .seconds = seconds};
  }

  /// What is written at a step, in the order that makes a crash anywhere harmless.
  void observe(Progress& progress, const std::optional<TrainRow>& row) {
    if (row) record_.append(*row);
    if (validations_.contains(state_.step)) {
      const double loss = mean_nll(pass_, streams_.valid_batches, streams_.valid_windows, *communicator_);
      record_.append(ValidRow{.step = state_.step, .loss = loss});
      progress.validated(loss);
    }
    const bool per_token = config_.routing.per_token_every > 0 && per_token_.contains(state_.step);
    if (snapshots_.contains(state_.step) || per_token) {
      snapshot_ =
          recorder_.snapshot(pass_, *communicator_, state_.step, state_.tokens_seen, per_token ? &alpha_ : nullptr);
      if (!per_token) alpha_.clear();
    }
    if (checkpoints_.contains(state_.step)) {
      checkpoint();
    } else if (std::chrono::steady_clock::now() - flushed_ > kFlushInterval) {
      flush(false);
    }
  }

  /// What observe() measured last, if that is not written yet: the device computes the next step meanwhile.
  void write_snapshot() {
    if (!snapshot_) return;
    record_.append(*snapshot_);
    if (!alpha_.empty()) record_.append_alpha(snapshot_->step, alpha_);
    snapshot_.reset();
  }

  void flush(bool sync) {
    record_.flush(sync);
    flushed_ = std::chrono::steady_clock::now();
  }

  void checkpoint() {
    write_snapshot();
    flush(true);
    writer_.begin(state_);
    writer_.finish();
    checkpointed_ = state_.step;
  }

  const TrainConfig& config_;
  const LoopOptions& options_;
  const Streams& streams_;
  fs::path dir_;
  TrainState state_;
  bool resumed_ = false;
  std::int64_t checkpointed_ = -1;  // the step of the newest checkpoint
  std::unique_ptr<Communicator> communicator_ = single_communicator();
  Model model_;
  AdamW optimizer_;
  CheckpointWriter writer_;
  OwnedTensor gradients_;
  Pass pass_;
  RoutingRecorder recorder_;
  RoutingRecord record_;
  StepSchedule checkpoints_, validations_, snapshots_, per_token_;
  std::optional<RoutingSnapshot> snapshot_;        // measured and not yet written
  std::vector<float> alpha_;                       // its weights token by token, or empty
  std::chrono::steady_clock::time_point flushed_;  // when readers last got to see new rows
};

}  // namespace

LoopResult run_training(const TrainConfig& config, const LoopOptions& options) {
  const fs::path dir = config.run.dir;
  apply_settings(config.kernels);
  Streams streams(config);  // before anything is written: bad data leave no run directory behind
  const RunLock lock(dir);
  check_config(dir, config);
  const std::optional<CheckpointEntry> checkpoint = newest_intact_checkpoint(dir);
  if (checkpoint) {
    check_same_run(read_train_state(*checkpoint), state_after(checkpoint->step, config, streams), checkpoint->dir);
  }
  // It is this run: from here on things are written.
  write_config(dir, config);
  remove_debris(dir);
  if (checkpoint && checkpoint->step >= config.train.steps) {
    spdlog::info("{}: finished, {} steps", dir.string(), checkpoint->step);
    return {.step = checkpoint->step};
  }
  if (checkpoint) spdlog::info("{}: resuming after step {} of {}", dir.string(), checkpoint->step, config.train.steps);
  Loop loop(config, options, streams, checkpoint);
  return loop.run();
}

}  // namespace routescope
