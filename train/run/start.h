// What a run is taken up from: its data, its checkpoint, its record, and whether all of that is this run's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include "data/records/routing_record.h"
#include "data/tokens/batches.h"
#include "data/tokens/shard.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/config.h"

namespace routescope::train {

/// The data of a run, checked against the vocabulary.
struct Streams {
  /// Throws Error for data that do not fit the configuration.
  explicit Streams(const TrainConfig& config);

  data::TokenStream train, valid;
  data::Batches train_batches, valid_batches;
  std::int64_t valid_windows;  // that validation takes
};

/// The settings of kernels that hold for the process.
void apply_settings(const TrainConfig::Kernels& kernels);

/// Every rank needs a micro-batch, and all of them the same run: `first_ranks_config` is rank 0's to_yaml(). Throws
/// Error.
void check_ranks(const TrainConfig& config, const std::string& first_ranks_config, const kernels::Place& place);

/// The newest intact checkpoint up to step `at_most`, and into `state` where it stands (or the run's beginning). Throws
/// Error or AgreedError where it is of other data or another seed. Collective.
std::optional<data::CheckpointEntry> find_checkpoint(const TrainConfig& config, const Streams& streams,
                                                     kernels::Communicator& communicator, TrainState& state,
                                                     std::int64_t at_most = std::numeric_limits<std::int64_t>::max());

/// What was passed over because it is damaged must not pass for intact later, when the record has been cut to an
/// earlier step: every checkpoint after `step` loses its name, and nothing else. Of one process.
void set_aside_after(const std::filesystem::path& run_dir, std::int64_t step);

/// The initial model or the checkpoint's, laid out for so many ranks. Throws Error where it is not the configuration's.
model::Model start_model(const TrainConfig& config, int ranks, const std::optional<data::CheckpointEntry>& checkpoint);

/// A record for a run that starts at its first step. One that a process killed before its first checkpoint left is
/// replaced: it holds nothing but the initial model. Throws Error for one that holds more.
data::RoutingRecord start_record(const std::filesystem::path& file, const data::RoutingRecordInfo& info);

}  // namespace routescope::train
