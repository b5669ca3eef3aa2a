// The tokens that a step trains on: a pure function of seed and step, so that a resumed run needs no saved state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/tokens/shard.h"

namespace routescope::data {

/// Inputs and targets, each [sequences, seq_len]; target[i] is the token after input[i].
struct Batch {
  std::vector<std::int32_t> inputs;
  std::vector<std::int32_t> targets;
};

/// The stream is cut into windows of seq_len + 1 tokens that overlap by one. Each epoch visits every window once, in an
/// order that a keyed permutation of (seed, epoch) gives in constant memory. Global sequence number g = step *
/// sequences_per_step + i is window permutation(g / windows)(g mod windows).
class Batches {
 public:
  /// Throws Error if the stream holds fewer than seq_len + 1 tokens.
  Batches(const TokenStream& stream, std::int64_t seq_len, std::int64_t sequences_per_step, std::uint64_t seed);

  /// Sequences [begin, end) of a step (0-based; a rank or micro-batch asks for its range).
  Batch get(std::int64_t step, std::int64_t begin, std::int64_t end) const;
  /// Windows [begin, end) in the order of the stream, without permutation, for validation and probes.
  Batch in_order(std::int64_t begin, std::int64_t end) const;
  std::int64_t windows() const { return windows_; }
  std::int64_t sequences_per_step() const { return sequences_per_step_; }

 private:
  std::int64_t window_of(std::int64_t sequence) const;
  const TokenStream* stream_;
  std::int64_t seq_len_, sequences_per_step_, windows_;
  std::uint64_t seed_;
};

}  // namespace routescope::data
