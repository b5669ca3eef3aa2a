// train_state.safetensors: the position of a run and the optimizer's state.
#include "data/base/manifest.h"
#include "kernels/memory.h"
#include "tests/fuzz/fuzz.h"
#include "train/checkpoint/state_file.h"

namespace routescope::fuzz {
namespace {

/// A model of one layer, whose state a few hundred bytes hold.
model::ModelConfig tiny() {
  model::ModelConfig config;
  config.vocab_size = config.hidden_size = config.intermediate_size = config.head_dim = 2;
  config.num_hidden_layers = config.num_attention_heads = config.num_key_value_heads = 1;
  return config;
}

}  // namespace
}  // namespace routescope::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  static const data::CheckpointEntry checkpoint{5, fuzz::scratch_directory()};
  static const model::ParameterLayout layout(fuzz::tiny());
  static const kernels::OwnedTensor slot(kernels::DType::f32, kernels::Device::cpu, {layout.total()});
  static const train::OptimizerState state{
      .slots = {"exp_avg"},
      .ranges = {{.begin = 0, .end = layout.total(), .state = {slot.tensor}, .parameters = {}, .written = true}}};
  static const bool listed = [] {
    data::write_manifest(checkpoint.dir, {{"train_state.safetensors", 1, std::string(64, '0')}});
    return true;
  }();
  fuzz::scratch_file("train_state.safetensors", fuzz::text_of(data, listed ? size : 0));
  fuzz::parse([&] { train::read_train_state(checkpoint); });
  return fuzz::parse([&] { train::read_optimizer_state(checkpoint, layout, state); });
}
