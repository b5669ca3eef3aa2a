// How a run starts or resumes: its data, its checkpoint and its record, and the checks that all of them belong to it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include "data/base/manifest.h"
#include "data/records/routing_record.h"
#include "data/tokens/batches.h"
#include "data/tokens/shard.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "train/checkpoint/state_file.h"
#include "train/config/config.h"

namespace routescope::train {

/// The data of a run, checked against the vocabulary.
struct Streams {
  /// Throws Error if the data do not fit the configuration.
  explicit Streams(const TrainConfig& config);

  data::TokenStream train, valid;
  data::Batches train_batches, valid_batches;
  std::int64_t valid_windows;  // number of windows that a validation takes
};

/// Where training starts.
struct StartPoint {
  std::optional<data::CheckpointEntry> checkpoint;  // none: the initial model
  TrainState state;
};

/// Sets the process-wide settings of the kernels.
void apply_settings(const TrainConfig::Kernels& kernels);

/// Checks that every rank has a micro-batch and that all ranks have the same configuration; `first_ranks_config` is
/// to_yaml() of rank 0. Throws Error.
void check_ranks(const TrainConfig& config, const std::string& first_ranks_config, const kernels::Place& place);

/// The newest intact checkpoint up to step `at_most` and the state in it, or the beginning of the run. Throws Error or
/// AgreedError if the checkpoint is of other data or another seed. Collective.
StartPoint find_start(const TrainConfig& config, const Streams& streams, kernels::Communicator& communicator,
                      std::int64_t at_most = std::numeric_limits<std::int64_t>::max());

/// The initial model or the checkpoint's model, laid out for `ranks` ranks. Throws Error if the checkpoint's model is
/// not the one of the configuration.
model::Model start_model(const TrainConfig& config, int ranks, const std::optional<data::CheckpointEntry>& checkpoint);

/// What of a run changes at a resume and changes bits by rounding, "" if nothing: `was` (nothing: not known) trained on
/// `ranks_before`, `now` trains on `ranks`. For the log.
std::string text_of_changed_sums(const std::optional<TrainConfig>& was, int ranks_before, const TrainConfig& now,
                                 int ranks);

/// Throws Error unless `file` is a record with every step up to `step`.
void check_record(const std::filesystem::path& file, std::int64_t step);

/// A new record, or the existing one cut back to the checkpoint's step. Without a checkpoint, an existing record that
/// holds no training step is replaced: a process wrote it and was killed before its first checkpoint. Throws Error for
/// a record with training steps and no checkpoint.
data::RoutingRecord start_record(const std::filesystem::path& file, const data::RoutingRecordInfo& info,
                                 const std::optional<data::CheckpointEntry>& checkpoint);

}  // namespace routescope::train
