// train_state*.safetensors: the optimizer's state and the position of the run (data/formats/checkpoint.md). Each rank
// writes one file with stretches of the parameters' state. Any number of ranks can read what any other number wrote.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/base/manifest.h"
#include "kernels/comm/communicator.h"
#include "model/files/safetensors.h"
#include "model/pass/model.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

/// The position of a run, stored in every checkpoint.
struct TrainState {
  std::int64_t step = 0;        // finished updates
  std::int64_t next_batch = 0;  // update step + 1 trains on Batches::get(next_batch, ...)
  std::int64_t skipped = 0;     // how many of the last steps, in a row, were skipped because they were not finite
  std::int64_t tokens_seen = 0;
  std::int64_t seed = 0;
  std::string train_fingerprint, valid_fingerprint;  // TokenStream::fingerprint()
};

/// train_state.safetensors for one rank, train_state-00001-of-00004.safetensors for the first of four.
std::string state_file_name(const kernels::Place& place);
/// The state as metadata of a state file.
std::map<std::string, std::string> state_metadata(const TrainState& state);

/// A tensor of a state file, f32: the elements of `parts` one after the other.
struct StateTensor {
  std::string name;                    // SLOT.PARAMETER, or SLOT.PARAMETER[begin:end] for some of its elements
  std::vector<std::int64_t> shape;     // of the parameter, or [end - begin]
  std::vector<kernels::Tensor> parts;  // views into the optimizer's arrays
};
/// What a rank writes, in file order: its ranges with `written`, without the padding between parameters.
std::vector<StateTensor> state_tensors(const model::ParameterLayout& layout, const OptimizerState& state);

/// Number of ranks that wrote a checkpoint's state. Throws Error if the manifest cannot be read.
int ranks_of_state(const data::CheckpointEntry& checkpoint);
/// Reads the position of the run from the state files. Throws Error, also if the files contradict each other or one is
/// missing.
TrainState read_train_state(const data::CheckpointEntry& checkpoint);
/// The same from files that are open, at least one: those of a checkpoint of `step`, by rank.
TrainState read_train_state(std::span<const model::SafetensorsReader> files, std::int64_t step);
/// Reads the optimizer's state of every element of state.ranges, whichever ranks wrote it; the padding between
/// parameters becomes zero. Throws Error unless the files hold every slot of every element of every parameter exactly
/// once, and nothing else.
void read_optimizer_state(const data::CheckpointEntry& checkpoint, const model::ParameterLayout& layout,
                          const OptimizerState& state);
/// The same from files that are open.
void read_optimizer_state(std::span<const model::SafetensorsReader> files, const model::ParameterLayout& layout,
                          const OptimizerState& state);

}  // namespace routescope::train
