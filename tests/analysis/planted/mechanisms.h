// The planted mechanisms: machines (micro_machine.h), the text that they predict, and what each says under every
// ablation of every slice, by construction.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/routes/prepare.h"
#include "tests/analysis/planted/micro_machine.h"

namespace routescope::planted {

inline constexpr std::int64_t positions = 16;

/// What a mechanism may know when it speaks at (sequence, position): the tokens up to there, and what ablations bring
/// in.
class Words {
 public:
  /// `donors`: aligned sequences of `patch`. `seed`: of `resample`.
  Words(const analysis::ProbeTokens& tokens, const analysis::ProbeTokens& donors, std::uint64_t seed)
      : tokens_(tokens), donors_(donors), seed_(seed) {
    for (std::int64_t s = 0; s < tokens.sequences; ++s) {
      for (std::int64_t t = 0; t < positions; ++t) {
        signals_ += at(s, t, Bit::signal);
        others_ += at(s, t, Bit::other);
        previous_ += previous(s, t);
      }
    }
  }

  int at(std::int64_t s, std::int64_t t, Bit which) const { return bit(tokens_.ids[index(s, t)], which); }
  /// What a previous-token head finds.
  int previous(std::int64_t s, std::int64_t t, Bit which = Bit::other) const {
    return at(s, std::max<std::int64_t>(t - 1, 0), which);
  }
  /// The choice of the token whose routing `resample` and `patch` put in place.
  int resampled_choice(std::int64_t s, std::int64_t t) const {
    return at(s, analysis::resample_donor(seed_, s, t, positions), Bit::choice);
  }
  int patched_choice(std::int64_t s, std::int64_t t) const { return bit(donors_.ids[index(s, t)], Bit::choice); }
  /// Signs of the means over all tokens that `mean` puts in place.
  int usual_signal() const { return sign(signals_); }
  int usual_other() const { return sign(others_); }
  int usual_previous() const { return sign(previous_); }

 private:
  static int sign(std::int64_t sum) { return (sum > 0) - (sum < 0); }
  static std::size_t index(std::int64_t s, std::int64_t t) { return static_cast<std::size_t>(s * positions + t); }
  const analysis::ProbeTokens& tokens_;
  const analysis::ProbeTokens& donors_;
  std::uint64_t seed_;
  std::int64_t signals_ = 0, others_ = 0, previous_ = 0;
};

/// What is said at a token: -1, 0 or 1.
using Says = std::function<int(const Words&, std::int64_t s, std::int64_t t)>;

inline int nothing(const Words&, std::int64_t, std::int64_t) {
  return 0;
}
inline int its_signal(const Words& words, std::int64_t s, std::int64_t t) {
  return words.at(s, t, Bit::signal);
}
inline int previous_other(const Words& words, std::int64_t s, std::int64_t t) {
  return words.previous(s, t);
}
inline int previous_signal(const Words& words, std::int64_t s, std::int64_t t) {
  return words.previous(s, t, Bit::signal);
}
inline int usual_signal(const Words& words, std::int64_t, std::int64_t) {
  return words.usual_signal();
}
inline int usual_other(const Words& words, std::int64_t, std::int64_t) {
  return words.usual_other();
}
inline int usual_previous(const Words& words, std::int64_t, std::int64_t) {
  return words.usual_previous();
}
/// One thing where the token's choice is 1, another where it is -1.
inline Says by_choice(Says yes, Says no) {
  return [=](const Words& words, std::int64_t s, std::int64_t t) {
    return words.at(s, t, Bit::choice) > 0 ? yes(words, s, t) : no(words, s, t);
  };
}
inline Says by_resampled(Says yes, Says no) {
  return [=](const Words& words, std::int64_t s, std::int64_t t) {
    return words.resampled_choice(s, t) > 0 ? yes(words, s, t) : no(words, s, t);
  };
}
inline Says by_patched(Says yes, Says no) {
  return [=](const Words& words, std::int64_t s, std::int64_t t) {
    return words.patched_choice(s, t) > 0 ? yes(words, s, t) : no(words, s, t);
  };
}

/// A slice that does something, and what is then said under each ablation, in the order of enum Ablation; an empty
/// entry: what the intact model says. Slices without a line change nothing under any ablation.
struct Line {
  std::string slice;
  std::array<Says, 6> says;  // mask, zero, mean, resample, freeze, patch
};

struct Mechanism {
  std::string name;
  Machine machine;
  Says intact;  // which is also what the text follows
  std::vector<Line> lines;
};

/// Independent sequences of fair bits, but that a token's answer is `law` of those before it with probability `right`.
inline analysis::ProbeTokens draw_text(const Says& law, double right, std::int64_t sequences, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  analysis::ProbeTokens tokens{sequences, positions, {}, "planted text, seed " + std::to_string(seed)};
  for (std::int64_t i = 0; i < sequences * positions; ++i)
    tokens.ids.push_back(static_cast<std::int32_t>(random() >> 60));
  std::uniform_real_distribution<double> uniform;
  const Words words(tokens, tokens, 0);
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (std::int64_t t = 0; t + 1 < positions; ++t) {
      // The law looks at other bits than the one that is written here.
      const bool up = (law(words, s, t) > 0) == (uniform(random) < right);
      std::int32_t& next = tokens.ids[static_cast<std::size_t>(s * positions + t + 1)];
      next = (next & ~1) | (up ? 1 : 0);
    }
  }
  return tokens;
}

/// Nats lost on `answer` with `said`, beyond the ln(8) of the other bits.
inline double loss(double beta, int answer, int said) {
  return std::log1p(std::exp(-beta * answer * said));
}

inline const char* const embedding_late = "embedding.mlp.late";
inline const char* const history_late = "history.mlp.late";
inline const char* const embedding_first = "embedding.attn.early";  // the only source of the first read

/// (a) Only the embedding carries the answer: the last MLP reads it with half of its weight, the other half lies on the
/// current source, which is zero. Weights do not depend on content, so nothing that moves weights between tokens
/// changes anything.
inline Mechanism only_embedding(double beta) {
  Machine machine(beta);
  machine.weigh_embedding("2.mlp", recency);
  return {"only the embedding",
          std::move(machine),
          its_signal,
          {{embedding_late, {nothing, nothing, usual_signal, {}, {}, {}}}}};
}

/// (b) Only history does: the answer is a bit of the token before, which the first layer's attention fetches into
/// block_1. (The embedding that it fetches it from is the first read's only source, which cannot be masked.)
inline Mechanism only_history(double beta) {
  Machine machine(beta);
  machine.copy_previous(0, other, signal, tag_1);
  machine.weigh_block("2.mlp", tag_1, recency);
  return {"only history",
          std::move(machine),
          previous_other,
          {{history_late, {nothing, nothing, usual_previous, {}, {}, {}}},
           {embedding_first, {Says{}, nothing, usual_other, {}, {}, {}}}}};
}

/// (c) As (a), but most of the weight lies on history, whose vector nobody reads.
inline Mechanism idle_mass(double beta) {
  Machine machine(beta);
  machine.copy_previous(0, other, unread, tag_1);
  machine.weigh_embedding("2.mlp", recency);
  machine.weigh_block("2.mlp", tag_1, recency + std::log(4.0));  // weights 1/6, 4/6, 1/6
  return {
      "idle mass", std::move(machine), its_signal, {{embedding_late, {nothing, nothing, usual_signal, {}, {}, {}}}}};
}

/// (d) Content chooses the route, and it matters: the embedding's signal (of size 1) where the token's choice is 1, the
/// previous token's other bit from block_1 (of size 1/4) where it is -1. What is frozen to its mean weight of about
/// 1/2 shouts down the smaller one.
inline Mechanism chosen_route(double beta) {
  Machine machine(beta);
  machine.copy_previous(0, other, signal, tag_1);
  machine.weigh_block("2.mlp", tag_1, alone);
  machine.weigh_embedding("2.mlp", alone, 120);  // 360 against 240, or 120 as the current source
  const Says chosen = by_choice(its_signal, previous_other);
  return {"chosen route",
          std::move(machine),
          chosen,
          {{embedding_late,
            {previous_other, by_choice(nothing, previous_other), by_choice(usual_signal, previous_other),
             by_resampled(its_signal, by_choice(nothing, previous_other)), its_signal,
             by_patched(its_signal, by_choice(nothing, previous_other))}},
           // Where block_1 alone had the weight and loses it to the mask, the embedding and the current source, which
           // is zero, share it.
           {history_late,
            {its_signal,
             by_choice(its_signal, nothing),
             by_choice(its_signal, usual_previous),
             by_choice(its_signal, by_resampled(nothing, previous_other)),
             {},
             by_choice(its_signal, by_patched(nothing, previous_other))}},
           // An empty block_1 loses its tag and with it the weight.
           {embedding_first, {Says{}, its_signal, by_choice(its_signal, usual_other), {}, {}, {}}}}};
}

/// (e) Weights depend on content as much, and nothing hangs on it: as (c), with the embedding's weight between 1/8 and
/// 7/8 by the token's choice.
inline Mechanism idle_choice(double beta) {
  Machine machine(beta);
  machine.copy_previous(0, other, unread, tag_1);
  machine.weigh_block("2.mlp", tag_1, alone);
  machine.weigh_embedding("2.mlp", alone, std::log(7.0));
  return {
      "idle choice", std::move(machine), its_signal, {{embedding_late, {nothing, nothing, usual_signal, {}, {}, {}}}}};
}

/// For first-order effects, which need a loss that gives way: as (a), but the current source is a constant that nobody
/// reads. It dilutes the signal in the last MLP's read, and, being part of what the final read takes, also what is
/// said, the more so the smaller that is: what is said rises with the embedding's weight. With beta = 4 that is beta
/// / 4.5 = 0.9 as it stands: less sure than one may be of a text that follows the law in 9 of 10 cases.
inline Machine diluted(double beta) {
  Machine machine(beta);
  machine.weigh_embedding("2.attn", alone);
  machine.copy_previous(2, other, unread, tag_1, 0, 2);
  machine.weigh_embedding("2.mlp", recency);
  return machine;
}

/// (f) Chance: as (d), with a third source (the previous token's signal, block_2) that is heard where block_1 is not.
/// With a text that follows no law, whatever is said is right half of the time: every ablation that leaves something to
/// say has a mean effect of exactly zero, and turning the answers around turns every effect around.
inline Mechanism chance(double beta) {
  Machine machine(beta);
  machine.copy_previous(0, other, signal, tag_1);
  machine.weigh_embedding("1.attn", alone);
  machine.copy_previous(1, signal, signal, tag_2);
  machine.weigh_block("2.mlp", tag_1, alone + std::log(1.5));  // weights 0.6 and 0.4
  machine.weigh_block("2.mlp", tag_2, alone);
  machine.weigh_embedding("2.mlp", alone, 120);
  return {"chance", std::move(machine), by_choice(its_signal, previous_other), {}};
}

}  // namespace routescope::planted
