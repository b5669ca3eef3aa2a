// The commands of routescope-model. Each writes a new directory or file, complete or absent, or prints its result.
// Throws Error, or UsageError for an option's value; returns the exit status.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace routescope::model {

/// The options of all commands; each command reads its own.
struct Arguments {
  std::string model, out, tokens, logit_bias, device = "auto", preset = "qwen3_0.6b", residual = "standard",
                                              source = "block_sum", dtype = "f32";
  std::vector<std::string> set;
  std::int64_t num_blocks = 8, sequences = 1, sequence_length = 256;
  double bias = 0;
  std::uint64_t seed = 1;
  bool grads = false;
};

/// Draws a new model.
int run_init(const Arguments& a);
/// Wraps a standard model, and compares the two on tokens.
int run_wrap(const Arguments& a);
/// import and export: any model directory that loads is written again, in f32 or another type.
int run_convert(const Arguments& a);
int run_dump(const Arguments& a);
int run_eval(const Arguments& a);

}  // namespace routescope::model
