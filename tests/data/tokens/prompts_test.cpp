// Generated prompts: their answers follow from them, their corrupted ones give no hint, in small vocabularies too.
#include "data/tokens/prompts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "data/base/error.h"

namespace routescope::data {
namespace {

using Ids = std::vector<std::int32_t>;

PromptOptions options_of(PromptKind kind, std::int64_t vocab_size, std::int64_t length) {
  PromptOptions options{.kind = kind, .count = 200, .length = length};
  for (std::int32_t id = 0; id < vocab_size; ++id) options.vocabulary[3 * id + 1] = 1 + id % 4;
  return options;
}

/// What follows the last token where it stood before; more than one entry: not told by the prompt.
std::set<std::int32_t> continuations(const Ids& tokens) {
  std::set<std::int32_t> out;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
    if (tokens[i] == tokens.back()) out.insert(tokens[i + 1]);
  return out;
}

std::ptrdiff_t count(const Ids& tokens, std::int32_t id) {
  return std::count(tokens.begin(), tokens.end(), id);
}

void expect_common(const GeneratedPrompt& prompt, const PromptOptions& options) {
  EXPECT_EQ(prompt.corrupted.size(), prompt.clean.size());
  EXPECT_NE(prompt.corrupted, prompt.clean);
  EXPECT_NE(prompt.answer, prompt.distractor);
  for (const Ids* tokens : {&prompt.clean, &prompt.corrupted})
    for (std::int32_t id : *tokens) EXPECT_TRUE(options.vocabulary.contains(id));
}

TEST(Prompts, InductionRepeatsOnePairAndItsCorruptedPromptLacksIt) {
  for (const auto& [vocab_size, length] : {std::pair(5, 4), {5, 12}, {257, 32}}) {
    const PromptOptions options = options_of(PromptKind::induction, vocab_size, length);
    std::set<std::ptrdiff_t> places;
    for (const GeneratedPrompt& prompt : generate_prompts(options)) {
      expect_common(prompt, options);
      ASSERT_EQ(std::ssize(prompt.clean), length);
      EXPECT_EQ(continuations(prompt.clean), std::set{prompt.answer});
      EXPECT_EQ(count(prompt.clean, prompt.clean.back()), 2);
      EXPECT_EQ(count(prompt.corrupted, prompt.answer), 0);
      EXPECT_EQ(prompt.corrupted.back(), prompt.clean.back());
      EXPECT_EQ(count(prompt.corrupted, prompt.corrupted.back()), 1);
      EXPECT_EQ(count(prompt.corrupted, prompt.distractor), count(prompt.clean, prompt.distractor));
      EXPECT_GE(count(prompt.clean, prompt.distractor), 1);
      places.insert(std::find(prompt.clean.begin(), prompt.clean.end(), prompt.clean.back()) - prompt.clean.begin());
    }
    EXPECT_EQ(std::ssize(places), length - 2);  // everywhere
  }
}

TEST(Prompts, CopyingRepeatsASegmentAndItsCorruptedPromptLacksIt) {
  for (const auto& [vocab_size, length] : {std::pair(3, 6), {5, 13}, {257, 32}}) {
    const PromptOptions options = options_of(PromptKind::copying, vocab_size, length);
    const std::int64_t segment = length / 2 + 1, again = length - segment;
    for (const GeneratedPrompt& prompt : generate_prompts(options)) {
      expect_common(prompt, options);
      ASSERT_EQ(std::ssize(prompt.clean), length);
      EXPECT_TRUE(std::equal(prompt.clean.begin(), prompt.clean.begin() + again, prompt.clean.begin() + segment));
      EXPECT_TRUE(std::equal(prompt.clean.begin() + segment, prompt.clean.end(), prompt.corrupted.begin() + segment));
      EXPECT_EQ(prompt.clean[static_cast<std::size_t>(again)], prompt.answer);
      EXPECT_EQ(continuations(prompt.clean), std::set{prompt.answer});
      EXPECT_EQ(count(prompt.corrupted, prompt.answer), 0);
      EXPECT_TRUE(continuations(prompt.corrupted).empty());
      EXPECT_GE(count(prompt.corrupted, prompt.distractor), 1);
    }
  }
}

TEST(Prompts, GreaterThanIsSolvedByTheGreaterId) {
  for (const auto& [vocab_size, length] : {std::pair(3, 5), {10, 12}, {257, 32}}) {
    const PromptOptions options = options_of(PromptKind::greater, vocab_size, length);
    for (const GeneratedPrompt& prompt : generate_prompts(options)) {
      expect_common(prompt, options);
      const std::size_t size = prompt.clean.size();
      ASSERT_EQ(size % 3, 2U);
      EXPECT_LE(std::ssize(prompt.clean), length);
      EXPECT_GT(std::ssize(prompt.clean), length - 3);
      for (std::size_t i = 0; i + 2 < size; i += 3) {
        EXPECT_NE(prompt.clean[i], prompt.clean[i + 1]);
        EXPECT_EQ(prompt.clean[i + 2], std::max(prompt.clean[i], prompt.clean[i + 1]));
      }
      EXPECT_EQ(prompt.answer, std::max(prompt.clean[size - 2], prompt.clean[size - 1]));
      EXPECT_EQ(prompt.distractor, std::min(prompt.clean[size - 2], prompt.clean[size - 1]));
      EXPECT_EQ(prompt.distractor, std::max(prompt.corrupted[size - 2], prompt.corrupted[size - 1]));
      EXPECT_TRUE(std::equal(prompt.clean.begin(), prompt.clean.end() - 2, prompt.corrupted.begin()));
    }
  }
}

TEST(Prompts, AreAFunctionOfTheSeed) {
  for (PromptKind kind : {PromptKind::induction, PromptKind::copying, PromptKind::greater}) {
    PromptOptions options = options_of(kind, 20, 16);
    const std::string first = to_jsonl(generate_prompts(options));
    EXPECT_EQ(to_jsonl(generate_prompts(options)), first);
    options.count = 50;  // the beginning of a longer list
    EXPECT_TRUE(first.starts_with(to_jsonl(generate_prompts(options))));
    options.seed = 2;
    EXPECT_FALSE(first.starts_with(to_jsonl(generate_prompts(options))));
  }
}

TEST(Prompts, AreRefusedWhereTheVocabularyOrTheLengthIsTooSmall) {
  const auto refused = [](PromptKind kind, std::int64_t vocab_size, std::int64_t length) {
    EXPECT_THROW(generate_prompts(options_of(kind, vocab_size, length)), Error) << vocab_size << " " << length;
    EXPECT_NO_THROW(generate_prompts(options_of(kind, 6, 7)));
  };
  refused(PromptKind::induction, 4, 12);
  refused(PromptKind::induction, 12, 3);
  refused(PromptKind::copying, 2, 12);
  refused(PromptKind::copying, 12, 5);
  refused(PromptKind::greater, 2, 12);
  refused(PromptKind::greater, 12, 4);
}

/// One id makes nearly all of the text: the others are found all the same.
TEST(Prompts, RareTokensAreFound) {
  PromptOptions options{.kind = PromptKind::induction, .count = 20, .length = 10};
  options.vocabulary = {{0, std::int64_t{1} << 40}, {1, 1}, {2, 1}, {3, 1}, {4, 1}};
  for (const GeneratedPrompt& prompt : generate_prompts(options)) expect_common(prompt, options);
}

TEST(Prompts, TokensAreDrawnAsOftenAsTheyAre) {
  PromptOptions options{.kind = PromptKind::copying, .count = 400, .length = 32};
  for (std::int32_t id = 0; id < 10; ++id) options.vocabulary[id] = id == 0 ? 90 : 10;
  std::int64_t zeros = 0, all = 0;
  for (const GeneratedPrompt& prompt : generate_prompts(options)) {
    if (prompt.answer == 0 || prompt.clean.back() == 0) continue;  // which stand nowhere else
    zeros += count(prompt.corrupted, 0);
    all += std::ssize(prompt.corrupted);
  }
  // About 90 of 160 draws without the two tokens that stand apart; 1 of 8 if all were drawn alike.
  ASSERT_GT(all, 1000);
  EXPECT_GT(zeros, 45 * all / 100);
  EXPECT_LT(zeros, 65 * all / 100);
}

TEST(Prompts, IdsAreListsAndRanges) {
  const auto ids = parse_ids("5,7-9,8", "--ids");
  EXPECT_EQ(ids, (std::map<std::int32_t, std::int64_t>{{5, 1}, {7, 1}, {8, 1}, {9, 1}}));
  for (const char* bad : {"", "5,", "9-7", "x", "1-", "-1", "0-2000000000", "1--2"})
    EXPECT_THROW(parse_ids(bad, "--ids"), Error) << bad;
}

}  // namespace
}  // namespace routescope::data
