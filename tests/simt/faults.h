// What tests of planted faults share: how often a kernel's result is wrong over several orders of threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/simt/device_array.h"

namespace simt {

inline constexpr std::uint64_t kSeeds = 10;

/// How many of the seeds give a result other than `expected`.
template <class T, class Run>
std::uint64_t wrong_results(const std::vector<T>& expected, Run&& run) {
  std::uint64_t wrong = 0;
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    const DeviceArray<T> out(expected.size());
    run(out.data());
    // Compared as bits: garbage is NaN, which differs from everything.
    const std::vector<T> got = out.host();
    if (std::memcmp(got.data(), expected.data(), expected.size() * sizeof(T)) != 0) ++wrong;
  }
  return wrong;
}

/// A fault that only some orders show must show in at least this many of ten.
inline constexpr std::uint64_t kOften = kSeeds / 2;

}  // namespace simt
