// Streams of random numbers for resampling: named by a key, the same to the bit on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace routescope::analysis {

/// Names one stream of random numbers. Results that must not share their noise get different keys: `slice` counts the
/// sets of a probe, `what` the quantities measured of each (its effect under every ablation, its excess, ...).
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint64_t slice = 0;
  std::uint64_t what = 0;
};

/// What a stream is used for: part of its name.
enum class Use : std::uint32_t { bootstrap = 1, sign_flip = 2, resample = 3, weigh = 4, permute = 5 };

/// The standard fixes seed_seq and mt19937_64 to the bit, but no distribution: hence below().
std::mt19937_64 generator(const RandomKey& key, Use use, std::uint64_t number = 0);

/// Uniform over [0, n) from 32 random bits. The bias, below n / 2^32, is far under the Monte Carlo error.
std::size_t below(std::uint32_t bits, std::size_t n);

}  // namespace routescope::analysis
