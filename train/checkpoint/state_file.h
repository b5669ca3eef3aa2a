// train_state*.safetensors: AdamW's moments as logical ranges of the parameters, one file for each rank that wrote, and
// where the run stood (data/formats/checkpoint.md). Any number of ranks reads what any number wrote.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/base/manifest.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

/// What a checkpoint says besides numbers.
struct TrainState {
  std::int64_t step = 0;        // finished updates
  std::int64_t next_batch = 0;  // what update step + 1 trains on: Batches::get(next_batch, ...)
  std::int64_t skipped = 0;     // how many of the last steps, in a row, were left out as not finite
  std::int64_t tokens_seen = 0;
  std::int64_t seed = 0;
  std::string train_fingerprint, valid_fingerprint;  // TokenStream::fingerprint()
};

/// train_state.safetensors of a process alone, train_state-00001-of-00004.safetensors of the first of four.
std::string state_file_name(const kernels::Place& place);
/// As metadata of each such file.
std::map<std::string, std::string> state_metadata(const TrainState& state);

/// A tensor of a state file, f32: the elements of `parts` one after the other.
struct StateTensor {
  std::string name;                 // exp_avg.NAME, or exp_avg.NAME[begin:end] for some elements of it; exp_avg_sq.NAME
  std::vector<std::int64_t> shape;  // of the parameter, or [end - begin]
  std::vector<kernels::Tensor> parts;  // views into the optimizer's arrays
};
/// What a rank writes: its ranges that are marked so, without the padding between parameters, in file order.
std::vector<StateTensor> state_tensors(const model::ParameterLayout& layout, const std::vector<OptimizerRange>& ranges);

/// What the checkpoint's state files say, without the moments. Throws Error, also if they contradict each other or one
/// of the set is missing.
TrainState read_train_state(const data::CheckpointEntry& checkpoint);
/// The moments of every element of `ranges`, whoever wrote them; the padding between parameters becomes zero. Throws
/// Error unless the files hold every element of every parameter exactly once, and nothing else.
void read_moments(const data::CheckpointEntry& checkpoint, const model::ParameterLayout& layout,
                  const std::vector<OptimizerRange>& ranges);
/// Those that this rank holds.
void read_moments(const data::CheckpointEntry& checkpoint, const model::Model& model, AdamW& optimizer);

}  // namespace routescope::train
