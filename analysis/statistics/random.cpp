#include "analysis/statistics/random.h"

namespace routescope::analysis {

std::mt19937_64 generator(const RandomKey& key, Use use, std::uint64_t number) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto high = [](std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); };
  std::seed_seq words{low(key.seed),
                      high(key.seed),
                      low(key.step),
                      high(key.step),
                      low(key.slice),
                      high(key.slice),
                      low(key.what),
                      high(key.what),
                      low(number),
                      high(number),
                      static_cast<std::uint32_t>(use)};
  return std::mt19937_64(words);
}

std::size_t below(std::uint32_t bits, std::size_t n) {
  return (static_cast<std::uint64_t>(bits) * n) >> 32;
}

}  // namespace routescope::analysis
