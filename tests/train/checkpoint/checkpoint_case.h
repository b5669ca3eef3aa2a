// A micro model with an optimizer state in which every value follows from its name and place, however ranks share it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/pass/model.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace routescope::testing {

/// Scalars, vectors and matrices; some 23,000 parameters.
inline model::ModelConfig checkpoint_model() {
  model::ModelConfig config;
  config.vocab_size = 257;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.residual = model::Residual::block_attn_res;
  config.source = model::AttnResSource::cumulative;
  config.num_blocks = 2;
  return config;
}

/// Element `element` of slot `slot` of parameter number `parameter`. An integer or a half below 2^24: exact in f32.
inline float state_value(std::size_t slot, std::size_t parameter, std::int64_t element) {
  return static_cast<float>((static_cast<std::int64_t>(parameter) * 7919 + element) % 100003 + 1) +
         static_cast<float>(slot) * 0.5F;
}

template <class Visit>  // visit(slot, parameter, element, float& stored); for padding, parameter is layout.all().size()
void for_each_value(const model::ParameterLayout& layout, const train::OptimizerState& state, const Visit& visit) {
  for (const train::StateRange& range : state.ranges) {
    std::vector<std::pair<std::size_t, std::int64_t>> owner(static_cast<std::size_t>(range.end - range.begin),
                                                            {layout.all().size(), 0});
    for (std::size_t p = 0; p < layout.all().size(); ++p) {
      const model::ParameterInfo& info = layout.all()[p];
      const std::int64_t end = std::min(range.end, info.offset + info.size);
      for (std::int64_t i = std::max(range.begin, info.offset); i < end; ++i)
        owner[static_cast<std::size_t>(i - range.begin)] = {p, i - info.offset};
    }
    for (std::size_t slot = 0; slot < range.state.size(); ++slot) {
      for (std::size_t i = 0; i < owner.size(); ++i)
        visit(slot, owner[i].first, owner[i].second, range.state[slot].as<float>()[i]);
    }
  }
}

inline void set_state(const model::ParameterLayout& layout, const train::OptimizerState& state) {
  for_each_value(layout, state, [&](std::size_t slot, std::size_t p, std::int64_t element, float& stored) {
    stored = p < layout.all().size() ? state_value(slot, p, element) : 0.0F;
  });
}

/// The number of values that differ from what set_state() wrote.
inline std::int64_t wrong_values(const model::ParameterLayout& layout, const train::OptimizerState& state) {
  std::int64_t wrong = 0;
  for_each_value(layout, state, [&](std::size_t slot, std::size_t p, std::int64_t element, const float& stored) {
    wrong += stored != (p < layout.all().size() ? state_value(slot, p, element) : 0.0F) ? 1 : 0;
  });
  return wrong;
}

inline train::TrainState checkpoint_state(std::int64_t step) {
  return {.step = step,
          .next_batch = step + 3,
          .skipped = 1,
          .tokens_seen = 64 * step,
          .seed = 7,
          .train_fingerprint = "train data",
          .valid_fingerprint = "held-out data"};
}

/// The names in a directory, sorted.
inline std::vector<std::string> names_in(const std::filesystem::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

}  // namespace routescope::testing
