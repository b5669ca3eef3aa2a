#include "train/run/start.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/base/error.h"
#include "data/records/routing_view.h"
#include "data/tokens/shard_files.h"
#include "kernels/attention_kernel.h"
#include "kernels/comm/agree.h"
#include "kernels/cuda/products.h"
#include "train/checkpoint/checkpoint_search.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

TrainState state_after(std::int64_t step, std::int64_t next_batch, const TrainConfig& config, const Streams& streams) {
  return {.step = step,
          .next_batch = next_batch,
          .tokens_seen = step * config.train.tokens_per_step,
          .seed = config.run.seed,
          .train_fingerprint = streams.train.fingerprint(),
          .valid_fingerprint = streams.valid.fingerprint()};
}

/// Throws Error if a checkpoint's state is of other data or another seed.
void check_same_run(const TrainState& state, const TrainState& expected, const fs::path& dir) {
  const auto check = [&dir](const char* key, const auto& found, const auto& wanted) {
    if (found != wanted) {
      throw data::Error("{}: {}: found {}, expected {}: this directory holds another run (use another run.dir)",
                        dir.string(), key, wanted, found);
    }
  };
  check("run.seed", state.seed, expected.seed);
  check("data.train (fingerprint)", state.train_fingerprint, expected.train_fingerprint);
  check("data.valid (fingerprint)", state.valid_fingerprint, expected.valid_fingerprint);
  check("tokens_seen", state.tokens_seen, expected.tokens_seen);
}

}  // namespace

Streams::Streams(const TrainConfig& config)
    : train(config.data.train, config.model.vocab_size),
      valid(config.data.valid, config.model.vocab_size),
      train_batches(train, config.data.sequence_length, config.sequences_per_step(),
                    static_cast<std::uint64_t>(config.run.seed)),
      valid_batches(valid, config.data.sequence_length, 1, static_cast<std::uint64_t>(config.run.seed)),
      valid_windows(std::min(config.valid.tokens / config.data.sequence_length, valid_batches.windows())) {
  data::require_apart_shards(config.data.train, "data.train", config.data.valid, "data.valid");
  if (valid_batches.windows() < config.routing.sequences) {
    throw data::Error("routing.sequences: found {}, expected at most {}, the windows of {} tokens in data.valid",
                      config.routing.sequences, valid_batches.windows(), config.data.sequence_length);
  }
  valid.hold(valid_windows * config.data.sequence_length + 1);
  if (const std::int64_t asked = config.valid.tokens / config.data.sequence_length; asked > valid_windows) {
    spdlog::warn(
        "valid.tokens: found {}, but data.valid has only {} windows of {} tokens: validation takes all of them",
        config.valid.tokens, valid_windows, config.data.sequence_length);
  }
}

void apply_settings(const TrainConfig::Kernels& kernels) {
  const std::map<std::string, kernels::AttentionKernel> choices{{"auto", kernels::AttentionKernel::automatic},
                                                                {"builtin", kernels::AttentionKernel::builtin},
                                                                {"cudnn", kernels::AttentionKernel::cudnn}};
  kernels::set_attention_kernel(choices.at(kernels.attention));
  kernels::cuda::set_product_tuning(kernels.tune_products == "on");
}

void check_ranks(const TrainConfig& config, const std::string& first_ranks_config, const kernels::Place& place) {
  const std::int64_t passes = config.sequences_per_step() / config.train.micro_batch;
  if (passes < place.size) {
    throw data::Error(
        "train.tokens_per_step: found {}, which is {} micro-batches of {} tokens, expected at least one for each of {} "
        "ranks (a smaller train.micro_batch makes more; a run that has begun may change it)",
        config.train.tokens_per_step, passes, config.train.micro_batch * config.data.sequence_length, place.size);
  }
  std::istringstream mine(to_yaml(config)), first(first_ranks_config);
  for (std::string line, expected; std::getline(mine, line) && std::getline(first, expected);) {
    if (line == expected) continue;
    throw data::Error(
        "configuration: found '{}', expected '{}' as on rank 0 (set device and precision to a value other than auto?)",
        line.substr(line.find_first_not_of(' ')), expected.substr(expected.find_first_not_of(' ')));
  }
}

StartPoint find_start(const TrainConfig& config, const Streams& streams, kernels::Communicator& communicator,
                      std::int64_t at_most) {
  StartPoint start{.checkpoint = newest_intact_checkpoint(config.run.dir, communicator, at_most), .state = {}};
  kernels::agree(communicator, "the state to resume from", [&] {
    if (!start.checkpoint) {
      start.state = state_after(0, 0, config, streams);
      return;
    }
    start.state = read_train_state(*start.checkpoint);
    check_same_run(start.state, state_after(start.checkpoint->step, start.state.next_batch, config, streams),
                   start.checkpoint->dir);
  });
  return start;
}

model::Model start_model(const TrainConfig& config, int ranks, const std::optional<data::CheckpointEntry>& checkpoint) {
  model::ModelOptions options = config.model_options();
  options.shards = ranks;
  if (!checkpoint) {
    model::Model model(config.model, options);
    model.initialize(static_cast<std::uint64_t>(config.run.seed));
    return model;
  }
  model::Model model = model::Model::load(checkpoint->dir, options);
  model::ModelConfig expected = config.model;
  // The checkpoint's stay: a configuration of an older version did not have them.
  expected.bos_token_id = model.config().bos_token_id;
  expected.eos_token_id = model.config().eos_token_id;
  if (model.config().to_json() != expected.to_json()) {
    throw data::Error("{}: config.json: found another model than config.yaml describes, expected the same",
                      checkpoint->dir.string());
  }
  return model;
}

std::string text_of_changed_sums(const std::optional<TrainConfig>& was, int ranks_before, const TrainConfig& now,
                                 int ranks) {
  std::vector<std::string> changes;
  const auto compare = [&changes](const char* name, const auto& before, const auto& after) {
    if (before != after) changes.push_back(fmt::format("{} {} (was {})", name, after, before));
  };
  compare("ranks", ranks_before, ranks);
  if (was) {
    compare("train.micro_batch", was->train.micro_batch, now.train.micro_batch);
    compare("device", was->device, now.device);
  }
  if (changes.empty()) return "";
  return fmt::format(
      "from here on with {}: sums may be rounded in another order, so weights and record may differ by rounding from "
      "those of a run without this change",
      fmt::join(changes, ", "));
}

void check_record(const fs::path& file, std::int64_t step) {
  const data::RoutingRecordView record = data::RoutingRecordView::load(file);
  const std::int64_t last = record.train.empty() ? 0 : record.train.back().step;
  if (last < step || std::ssize(record.train) < step)
    throw data::Error("{}: found {} training steps up to step {}, expected all {} of this run", file.string(),
                      record.train.size(), last, step);
}

data::RoutingRecord start_record(const fs::path& file, const data::RoutingRecordInfo& info,
                                 const std::optional<data::CheckpointEntry>& checkpoint) {
  if (checkpoint) return data::RoutingRecord::resume(file, info, checkpoint->step);
  if (fs::exists(file)) {
    const std::size_t rows = data::RoutingRecordView::load(file).train.size();
    if (rows > 0) {
      throw data::Error(
          "{}: found the record of {} training steps and no checkpoint, expected a checkpoint to resume from",
          file.string(), rows);
    }
    fs::remove(file);
  }
  return data::RoutingRecord::create(file, info);
}

}  // namespace routescope::train
