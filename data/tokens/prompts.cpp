#include "data/tokens/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "data/base/error.h"
#include "data/base/number.h"
#include "data/tokens/mix.h"

namespace routescope::data {
namespace {

using Ids = std::vector<std::int32_t>;

/// Draws by a counter: the same everywhere.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t prompt) : key_(mix(mix(seed) ^ prompt)) {}
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(mix(key_ + ++drawn_) % static_cast<std::uint64_t>(bound));
  }

 private:
  std::uint64_t key_, drawn_ = 0;
};

/// Tokens by how often they are.
class Vocabulary {
 public:
  explicit Vocabulary(const std::map<std::int32_t, std::int64_t>& counts) {
    for (const auto& [id, count] : counts) {
      ids_.push_back(id);
      sums_.push_back(count + (sums_.empty() ? 0 : sums_.back()));
    }
  }
  std::int64_t size() const { return std::ssize(ids_); }
  std::int32_t at(std::int64_t i) const { return ids_[static_cast<std::size_t>(i)]; }

  /// None of `but`. There are others.
  std::int32_t draw(Dice& dice, const Ids& but) const {
    const auto excluded = [&](std::int32_t id) { return std::find(but.begin(), but.end(), id) != but.end(); };
    constexpr int most_tries = 100;
    for (int tries = 0; tries < most_tries; ++tries) {
      const auto found = std::upper_bound(sums_.begin(), sums_.end(), dice.below(sums_.back()));
      const std::int32_t id = ids_[static_cast<std::size_t>(found - sums_.begin())];
      if (!excluded(id)) return id;
    }
    // What is excluded is most of the text: all others alike.
    Ids others = ids_;
    std::erase_if(others, excluded);
    return others[static_cast<std::size_t>(dice.below(std::ssize(others)))];
  }
  Ids draw(Dice& dice, std::int64_t count, const Ids& but) const {
    Ids out;
    while (std::ssize(out) < count) out.push_back(draw(dice, but));
    return out;
  }

 private:
  Ids ids_;
  std::vector<std::int64_t> sums_;
};

void expect_size(const PromptOptions& options, const char* kind, std::int64_t least_ids, std::int64_t least_length) {
  if (std::ssize(options.vocabulary) < least_ids)
    throw Error("{}: found {} different tokens to draw from, expected at least {}", kind, options.vocabulary.size(),
                least_ids);
  if (options.length < least_length)
    throw Error("{}: found a length of {} tokens, expected at least {}", kind, options.length, least_length);
}

std::int32_t one_of(Dice& dice, std::span<const std::int32_t> tokens) {
  return tokens[static_cast<std::size_t>(dice.below(std::ssize(tokens)))];
}

GeneratedPrompt induction(const Vocabulary& vocabulary, std::int64_t length, Dice& dice) {
  Ids special;  // A, B, and the pair in their place: nowhere else in the prompt
  while (special.size() < 4) special.push_back(vocabulary.draw(dice, special));
  const Ids others = vocabulary.draw(dice, length - 3, special);
  const auto place = static_cast<std::ptrdiff_t>(dice.below(length - 2));
  const auto with_pair = [&](std::size_t pair) {
    Ids tokens = others;
    tokens.insert(tokens.begin() + place, special.begin() + static_cast<std::ptrdiff_t>(pair),
                  special.begin() + static_cast<std::ptrdiff_t>(pair) + 2);
    tokens.push_back(special[0]);
    return tokens;
  };
  return {with_pair(0), with_pair(2), special[1], one_of(dice, others)};
}

GeneratedPrompt copying(const Vocabulary& vocabulary, std::int64_t length, Dice& dice) {
  const std::int64_t segment = length / 2 + 1, again = length - segment;  // again >= 2
  const std::int32_t last = vocabulary.draw(dice, {}), answer = vocabulary.draw(dice, {last});
  const Ids special{last, answer};
  Ids first = vocabulary.draw(dice, segment, special), other = vocabulary.draw(dice, segment, special);
  first[static_cast<std::size_t>(again - 1)] = last;
  first[static_cast<std::size_t>(again)] = answer;
  GeneratedPrompt out{first, other, answer, one_of(dice, std::span(first).first(static_cast<std::size_t>(again - 1)))};
  out.clean.insert(out.clean.end(), first.begin(), first.begin() + again);
  out.corrupted.insert(out.corrupted.end(), first.begin(), first.begin() + again);
  return out;
}

GeneratedPrompt greater(const Vocabulary& vocabulary, std::int64_t length, Dice& dice) {
  GeneratedPrompt out;
  const auto put_pair = [&](Ids& tokens, std::int32_t less, std::int32_t more, bool turned) {
    tokens.push_back(turned ? more : less);
    tokens.push_back(turned ? less : more);
  };
  for (std::int64_t example = 0; example < (length - 2) / 3; ++example) {
    const std::int64_t more = 1 + dice.below(vocabulary.size() - 1);
    put_pair(out.clean, vocabulary.at(dice.below(more)), vocabulary.at(more), dice.below(2) == 1);
    out.clean.push_back(vocabulary.at(more));
  }
  out.corrupted = out.clean;
  const std::int64_t less = 1 + dice.below(vocabulary.size() - 2),
                     more = less + 1 + dice.below(vocabulary.size() - less - 1);
  const bool turned = dice.below(2) == 1;
  out.answer = vocabulary.at(more);
  out.distractor = vocabulary.at(less);
  put_pair(out.clean, out.distractor, out.answer, turned);
  put_pair(out.corrupted, out.distractor, vocabulary.at(dice.below(less)), turned);
  return out;
}

}  // namespace

std::vector<GeneratedPrompt> generate_prompts(const PromptOptions& options) {
  if (options.kind == PromptKind::induction) expect_size(options, "induction", 5, 4);
  if (options.kind == PromptKind::copying) expect_size(options, "copying", 3, 6);
  if (options.kind == PromptKind::greater) expect_size(options, "greater-than", 3, 5);
  const Vocabulary vocabulary(options.vocabulary);
  std::vector<GeneratedPrompt> prompts;
  for (std::int64_t i = 0; i < options.count; ++i) {
    Dice dice(options.seed, static_cast<std::uint64_t>(i));
    prompts.push_back(options.kind == PromptKind::induction ? induction(vocabulary, options.length, dice)
                      : options.kind == PromptKind::copying ? copying(vocabulary, options.length, dice)
                                                            : greater(vocabulary, options.length, dice));
  }
  return prompts;
}

std::string to_jsonl(const std::vector<GeneratedPrompt>& prompts) {
  std::string out;
  for (const GeneratedPrompt& prompt : prompts)
    out += nlohmann::ordered_json{{"clean", prompt.clean},
                                  {"corrupted", prompt.corrupted},
                                  {"answer", prompt.answer},
                                  {"distractor", prompt.distractor}}
               .dump() +
           "\n";
  return out;
}

std::map<std::int32_t, std::int64_t> parse_ids(const std::string& text, const std::string& where) {
  constexpr std::int64_t most = std::int64_t{1} << 22;
  std::map<std::int32_t, std::int64_t> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const std::size_t dash = item.find('-', 1);
    const auto first = parse_number<std::int32_t>(item.substr(0, dash), where, 0);
    const auto last = dash == std::string::npos ? first : parse_number<std::int32_t>(item.substr(dash + 1), where, 0);
    if (last < first) throw Error("{}: found '{}', expected a range that rises", where, item);
    if (std::int64_t{last} - first >= most) throw Error("{}: found '{}', expected at most {} ids", where, item, most);
    for (std::int64_t id = first; id <= last; ++id) out[static_cast<std::int32_t>(id)] = 1;
    begin = end + 1;
  }
  return out;
}

}  // namespace routescope::data
