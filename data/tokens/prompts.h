// Prompts of which the right answer follows from the prompt alone, in any vocabulary (data/formats/tasks.md).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace routescope::data {

/// induction: random tokens in which a pair A B stands once, then A again; the answer is B. Corrupted: another pair
///   stands in the place of the first A B.
/// copying: random tokens, and then their beginning again; the answer is what comes next. Corrupted: other tokens come
///   first, and the beginning stands behind them as before.
/// greater: solved examples `x y z`, z the greater of two different x and y, and then x y alone; the answer is the
///   greater. Corrupted: a smaller token in the place of the greater one, so that the other one is right. "Greater" is
///   the order of the ids.
/// In the first two the distractor is another token of both prompts; in the last it is the corrupted prompt's answer.
enum class PromptKind { induction, copying, greater };

struct PromptOptions {
  PromptKind kind = PromptKind::induction;
  std::int64_t count = 128;  // prompts
  std::int64_t length = 32;  // tokens of each; greater: the most
  std::uint64_t seed = 1;
  /// What tokens are drawn from, and how often each is; greater draws all alike.
  std::map<std::int32_t, std::int64_t> vocabulary = {};
};

struct GeneratedPrompt {
  std::vector<std::int32_t> clean, corrupted;
  std::int32_t answer = 0, distractor = 0;
};

/// A function of the options alone. Throws Error where the vocabulary or the length is too small for the kind.
std::vector<GeneratedPrompt> generate_prompts(const PromptOptions& options);

/// A line of a task file for each.
std::string to_jsonl(const std::vector<GeneratedPrompt>& prompts);

/// "48-57,65": ids and ranges of ids, once each. Throws Error naming `where`.
std::map<std::int32_t, std::int64_t> parse_ids(const std::string& text, const std::string& where);

}  // namespace routescope::data
