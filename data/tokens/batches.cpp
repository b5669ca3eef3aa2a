#include "data/tokens/batches.h"

#include <algorithm>
#include <bit>

#include "data/base/error.h"
#include "data/tokens/mix.h"

namespace routescope::data {

namespace {

// A permutation of [0, n): a Feistel network on the smallest even number of bits that holds n - 1, walked along its
// cycle until it lands below n (at most 4 steps on average, as the network's domain is at most 4 n).
std::uint64_t permute(std::uint64_t index, std::uint64_t n, std::uint64_t key) {
  const int half_bits = (std::bit_width(n - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  constexpr std::uint64_t rounds = 6;
  do {
    std::uint64_t left = index >> half_bits, right = index & mask;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t next = left ^ (mix(mix(key + round) ^ right) & mask);
      left = right;
      right = next;
    }
    index = (left << half_bits) | right;
  } while (index >= n);
  return index;
}

}  // namespace

Batches::Batches(const TokenStream& stream, std::int64_t seq_len, std::int64_t sequences_per_step, std::uint64_t seed)
    : stream_(&stream), seq_len_(seq_len), sequences_per_step_(sequences_per_step), windows_(0), seed_(seed) {
  if (seq_len < 1) throw Error("sequence length {}, expected at least 1", seq_len);
  if (sequences_per_step < 1) throw Error("{} sequences a step, expected at least 1", sequences_per_step);
  windows_ = (stream.size() - 1) / seq_len;
  if (stream.size() < seq_len + 1)
    throw Error("{}: found {} tokens, expected at least {} (one sequence and the token after it)", stream.name(),
                stream.size(), seq_len + 1);
}

std::int64_t Batches::window_of(std::int64_t sequence) const {
  const std::int64_t epoch = sequence / windows_;
  const std::uint64_t key = mix(mix(seed_) + static_cast<std::uint64_t>(epoch));
  return static_cast<std::int64_t>(
      permute(static_cast<std::uint64_t>(sequence % windows_), static_cast<std::uint64_t>(windows_), key));
}

namespace {

// Appends window number `window`: its first seq_len tokens to the inputs, its last seq_len to the targets.
void take_window(const TokenStream& stream, std::int64_t window, std::int64_t seq_len,
                 std::vector<std::int32_t>& tokens, Batch& batch) {
  tokens.resize(static_cast<std::size_t>(seq_len + 1));
  stream.read(window * seq_len, tokens);
  batch.inputs.insert(batch.inputs.end(), tokens.begin(), tokens.end() - 1);
  batch.targets.insert(batch.targets.end(), tokens.begin() + 1, tokens.end());
}

}  // namespace

Batch Batches::get(std::int64_t step, std::int64_t begin, std::int64_t end) const {
  if (step < 0 || begin < 0 || begin > end || end > sequences_per_step_)
    throw Error("batch of step {}: sequences {} to {} asked for, a step has {}", step, begin, end, sequences_per_step_);
  Batch batch;
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = begin; i < end; ++i)
    take_window(*stream_, window_of(step * sequences_per_step_ + i), seq_len_, tokens, batch);
  return batch;
}

Batch Batches::in_order(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || begin > end || end > windows_)
    throw Error("{}: windows {} to {} asked for, there are {} of {} tokens", stream_->name(), begin, end, windows_,
                seq_len_);
  Batch batch;
  std::vector<std::int32_t> tokens;
  for (std::int64_t window = begin; window < end; ++window) take_window(*stream_, window, seq_len_, tokens, batch);
  return batch;
}

}  // namespace routescope::data
