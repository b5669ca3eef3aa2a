// Directories of checkpoints: their names while they are written or removed, their removal, and whether one is intact.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/base/manifest.h"
#include "kernels/tensor.h"

namespace routescope::train {

/// Where a checkpoint is while it is written: beside its final place, under a name that readers ignore.
std::filesystem::path writing_dir(const std::filesystem::path& checkpoint);
/// Throws Error.
void rename_directory(const std::filesystem::path& from, const std::filesystem::path& to);

/// The same file under a second name, or a copy of it where the file system has no links. Throws
/// std::filesystem::filesystem_error, and Error if a copy cannot be synced.
void link_or_copy(const std::filesystem::path& from, const std::filesystem::path& to);

/// Every directory that is named as a checkpoint, with or without a manifest, in no order. Throws Error.
std::vector<data::CheckpointEntry> named_as_checkpoints(const std::filesystem::path& run_dir);

/// Whether every file of a checkpoint matches its manifest, and all its numbers are finite. Returns false soon after
/// `given_up` is set.
bool is_intact(const data::CheckpointEntry& checkpoint, const std::atomic<bool>& given_up);

/// Whether a file of a checkpoint is named as a safetensors file.
bool holds_tensors(const std::filesystem::path& file);
/// Throws Error naming the first tensor of a safetensors file that holds a number which is not finite.
void check_finite(const std::filesystem::path& file);

/// Whether a checkpoint lists the state that a run goes on from. One without it is a model directory with a manifest.
/// Throws Error if the manifest cannot be read.
bool has_state(const data::CheckpointEntry& checkpoint);
/// Removes the state from a checkpoint: its weights get a directory and a manifest of their own, which takes the name
/// in one step where the file system can exchange two names. Elsewhere a kill in between leaves no checkpoint of this
/// name, until remove_debris(). With bf16 the weights are verified and rounded (write_rounded_weights()). Throws Error;
/// the checkpoint then stays as it was, unless only its new name is missing.
void remove_state(const std::filesystem::path& checkpoint, kernels::DType weights_dtype = kernels::DType::f32);

/// Renames a checkpoint to a name that readers ignore, then removes it; what cannot be removed is debris. Throws Error
/// if it cannot be renamed.
void remove_checkpoint(const std::filesystem::path& checkpoint);
/// Removes every checkpoint after `step`, intact or not: a run that went back to `step` must not resume from them. Only
/// one process may call it, while no checkpoint is written. Throws Error if a checkpoint cannot be renamed.
void remove_checkpoints_after(const std::filesystem::path& run_dir, std::int64_t step);
/// Renames every checkpoint after `step` to damaged-step-N and logs it. They were ignored because they are damaged;
/// under their own name they could be found again once the record has been cut back to `step`. Only one process may
/// call it.
void set_aside_checkpoints_after(const std::filesystem::path& run_dir, std::int64_t step);
/// Removes what interrupted saves and removals left, and ends an interrupted remove_state(). Only one process may call
/// it, before any checkpoint is written.
void remove_debris(const std::filesystem::path& run_dir);

}  // namespace routescope::train
