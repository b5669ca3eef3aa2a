// A task whose answer travels one route: content lets the last MLP read the embedding or nothing, and the corrupted
// prompts are those with nothing.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>

#include "tests/analysis/planted/mechanisms.h"

namespace routescope::planted {

inline const double task_beta = std::log(9.0);
inline constexpr int task_prompts = 24;

/// The embedding's weight in the last MLP's read is 1 where the token's choice is 1, else 0.
inline Machine gated() {
  Machine machine(task_beta);
  machine.weigh_embedding("2.mlp", recency, 120);
  return machine;
}

/// Lines of prompts of 2 to 15 random tokens; the last one's choice opens the route in the clean prompt only, and its
/// signal is the answer's first bit.
inline std::string task_text(std::uint64_t seed = 5) {
  std::mt19937_64 random(seed);
  std::string out;
  for (int q = 0; q < task_prompts; ++q) {
    const int length = 2 + q % 14;
    std::string before;
    for (int t = 0; t + 1 < length; ++t) before += std::to_string(random() % 16) + ",";
    const auto last = static_cast<int>(random() % 8);  // its choice bit is clear
    const int answer = static_cast<int>(random() % 8) * 2 + (bit(last, Bit::signal) > 0);
    out += "{\"clean\": [" + before + std::to_string(last | 8) + "], \"corrupted\": [" + before + std::to_string(last) +
           "], \"answer\": " + std::to_string(answer) + ", \"distractor\": " + std::to_string(answer ^ 1) + "}\n";
  }
  return out;
}

}  // namespace routescope::planted
