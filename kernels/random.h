// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
// and normal variates from it by Box-Muller. A number is a pure function of (seed, sequence, index), so any thread,
// rank or backend computes any part of a stream by itself.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/bf16.h"

namespace routescope::kernels {

struct Philox4x32 {
  std::uint32_t word[4];
};

/// Ten rounds of Philox on a 128-bit counter under a 64-bit key.
ROUTESCOPE_HOST_DEVICE inline Philox4x32 philox4x32_10(Philox4x32 counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {
        {static_cast<std::uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<std::uint32_t>(product1),
         static_cast<std::uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;  // golden ratio
    key1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return counter;
}

/// Words 4*block .. 4*block+3 of the stream (seed, sequence).
ROUTESCOPE_HOST_DEVICE inline Philox4x32 random_words(std::uint64_t seed, std::uint64_t sequence, std::uint64_t block) {
  return philox4x32_10({{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                         static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(sequence >> 32)}},
                       static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

/// Uniform in (0, 1): never 0 or 1.
ROUTESCOPE_HOST_DEVICE inline double to_uniform(std::uint32_t word) {
  return (word + 0.5) * 0x1p-32;
}

/// Four N(0, 1) variates, numbers 4*block .. 4*block+3 of the stream. In double on every backend: the logarithm in
/// float near 1 would lose digits of the small variates.
ROUTESCOPE_HOST_DEVICE inline void random_normals(double out[4], std::uint64_t seed, std::uint64_t sequence,
                                                  std::uint64_t block) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  const Philox4x32 bits = random_words(seed, sequence, block);
  for (int pair = 0; pair < 2; ++pair) {
    const double radius = std::sqrt(-2.0 * std::log(to_uniform(bits.word[2 * pair])));
    const double angle = kTwoPi * to_uniform(bits.word[2 * pair + 1]);
    out[2 * pair] = radius * std::cos(angle);
    out[2 * pair + 1] = radius * std::sin(angle);
  }
}

}  // namespace routescope::kernels
