// train_state.safetensors: the position of a run and the optimizer's state.
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
  static const model::ParameterLayout layout(fuzz::tiny());
  static const kernels::OwnedTensor slot(kernels::DType::f32, kernels::Device::cpu, {layout.total()});
  static const train::OptimizerState state{
      .slots = {"exp_avg"},
      .ranges = {{.begin = 0, .end = layout.total(), .state = {slot.tensor}, .parameters = {}, .written = true}}};
  std::vector<model::SafetensorsReader> files;
  fuzz::parse([&] { files.emplace_back(fuzz::memory_file(fuzz::text_of(data, size)), "f"); });
  if (files.empty()) return 0;
  fuzz::parse([&] { train::read_train_state(files, 5); });
  return fuzz::parse([&] { train::read_optimizer_state(files, layout, state); });
}
