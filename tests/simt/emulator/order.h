// Which of a block's threads goes on next. One of several habits for each block: a bug of order may need one thread far
// ahead of all others, or far behind, or warps one after another, and uniform chance alone rarely comes by.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tests/simt/emulator/random.h"

namespace simt {

class Order {
 public:
  /// For a block of `threads`, none of which is ready.
  void begin(Random& random, int threads) {
    warps_.fill(0);
    ready_warps_ = 0;
    const std::uint32_t habits = random.below(8);
    habit_ = habits < 3 ? Habit::any : static_cast<Habit>(habits - 2);
    favourite_ = static_cast<int>(random.below(static_cast<std::uint32_t>(threads)));
    last_ = habit_ == Habit::backwards ? 0 : threads - 1;
  }

  void add(int thread) { add(thread / 32, 1u << (thread % 32)); }
  void add(int warp, std::uint32_t lanes) {
    warps_[static_cast<std::size_t>(warp)] |= lanes;
    ready_warps_ |= 1u << warp;
  }

  /// Takes one of the ready threads out; -1 if there is none.
  int take(Random& random) {
    if (ready_warps_ == 0) return -1;
    last_ = choose(random);
    remove(last_);
    return last_;
  }

 private:
  enum class Habit : std::uint32_t { any, ahead, behind, forwards, backwards, by_warp };

  static int first_from(std::uint32_t set, int from) {
    const std::uint32_t above = set & (~0u << from);
    return std::countr_zero(above != 0 ? above : set);
  }
  std::uint32_t& lanes(int warp) { return warps_[static_cast<std::size_t>(warp)]; }
  bool ready(int thread) { return (lanes(thread / 32) >> (thread % 32) & 1u) != 0; }
  void remove(int thread) {
    lanes(thread / 32) &= ~(1u << (thread % 32));
    if (lanes(thread / 32) == 0) ready_warps_ &= ~(1u << (thread / 32));
  }
  int any(std::uint32_t bits) {
    const int warp = first_from(ready_warps_, static_cast<int>(bits & 31u));
    return warp * 32 + first_from(lanes(warp), static_cast<int>(bits >> 5 & 31u));
  }
  int choose(Random& random) {
    switch (habit_) {
      case Habit::any:
        break;
      case Habit::ahead:
        if (ready(favourite_)) return favourite_;
        break;
      case Habit::behind: {
        const int chosen = any(random.next());
        if (chosen != favourite_) return chosen;
        remove(favourite_);
        const int other = ready_warps_ != 0 ? any(random.next()) : favourite_;
        add(favourite_);
        return other;
      }
      case Habit::forwards: {
        const int warp = last_ / 32, lane = last_ % 32;
        const std::uint32_t rest = lane == 31 ? 0 : lanes(warp) & (~0u << (lane + 1));
        if (rest != 0) return warp * 32 + std::countr_zero(rest);
        const int next = first_from(ready_warps_, (warp + 1) % 32);
        return next * 32 + std::countr_zero(lanes(next));
      }
      case Habit::backwards: {
        const int warp = last_ / 32, lane = last_ % 32;
        const std::uint32_t rest = lanes(warp) & ((1u << lane) - 1u);
        if (rest != 0) return warp * 32 + 31 - std::countl_zero(rest);
        const std::uint32_t below = ready_warps_ & ((1u << warp) - 1u);
        const int next = 31 - std::countl_zero(below != 0 ? below : ready_warps_);
        return next * 32 + 31 - std::countl_zero(lanes(next));
      }
      case Habit::by_warp: {
        const int warp = last_ / 32;
        if (lanes(warp) != 0) return warp * 32 + first_from(lanes(warp), static_cast<int>(random.next() & 31u));
        break;
      }
    }
    return any(random.next());
  }

  std::array<std::uint32_t, 32> warps_{};  // a bit for each ready thread
  std::uint32_t ready_warps_ = 0;          // a bit for each warp that has any
  Habit habit_ = Habit::any;
  int favourite_ = 0;
  int last_ = 0;
};

}  // namespace simt
