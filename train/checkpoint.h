// Checkpoints: a model directory with the optimizer's state beside it, complete or absent (data/formats/checkpoint.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/manifest.h"
#include "model/model.h"
#include "train/optimizer.h"

namespace routescope {

/// What a checkpoint says besides numbers. Batches are a function of seed and step, so this is all the data position.
struct TrainState {
  std::int64_t step = 0;  // finished updates
  std::int64_t tokens_seen = 0;
  std::int64_t seed = 0;
  std::string train_fingerprint, valid_fingerprint;  // TokenStream::fingerprint()
};

/// Writes RUN/checkpoints/step-NNNNNNNN: in a temporary directory beside it, synced, MANIFEST.json last, then renamed.
/// A checkpoint of the same step that is there already (a broken one) is replaced. Throws Error; the temporary
/// directory is removed then and the other checkpoints are as they were.
void save_checkpoint(const std::filesystem::path& run_dir, const Model& model, const AdamW& optimizer,
                     const TrainState& state);

/// The newest checkpoint whose files are what its manifest says. Every newer one that is not is reported in the log.
/// Throws Error if there are checkpoints and none is intact.
std::optional<CheckpointEntry> newest_intact_checkpoint(const std::filesystem::path& run_dir);

/// What the checkpoint's train_state says, without the moments. Throws Error.
TrainState read_train_state(const CheckpointEntry& checkpoint);
/// The moments. Throws Error for one that is absent or has another shape.
void read_moments(const CheckpointEntry& checkpoint, const Model& model, AdamW& optimizer);

/// Removes what an interrupted save or removal left behind.
void remove_debris(const std::filesystem::path& run_dir);
/// Removes all but the newest `keep` checkpoints.
void prune_checkpoints(const std::filesystem::path& run_dir, std::int64_t keep);

}  // namespace routescope
