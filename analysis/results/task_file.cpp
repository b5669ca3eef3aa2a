#include "analysis/results/task_file.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"
#include "data/base/sha256.h"
#include "data/tokens/tokenizer.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

constexpr std::array keys{"clean", "corrupted", "answer", "distractor", "group"};
constexpr std::int64_t most_tokens = std::int64_t{1} << 28;  // of all sequences, with padding

struct Prompt {
  Ids clean, corrupted;  // corrupted may be empty
  std::int32_t answer = 0, distractor = -1;
  std::string group;
};

/// A line of a task file.
class Line {
 public:
  Line(std::string_view text, std::string where, std::int64_t vocab_size)
      : where_(std::move(where)), vocab_size_(vocab_size) {
    if (text.find_first_not_of(" \t\r") == std::string_view::npos)
      throw data::Error("{}: found an empty line, expected a prompt", where_);
    object_ = data::parse_json(text, where_);
    if (!object_.is_object()) throw data::Error("{}: found {}, expected a JSON object", where_, data::excerpt(object_));
    for (const auto& [key, value] : object_.items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        throw data::Error("{}: found the key '{}', expected {}", where_, data::shortened(key), fmt::join(keys, ", "));
    }
  }

  Prompt prompt() const {
    Prompt out{tokens("clean"), {}, one_token("answer"), -1, {}};
    if (out.clean.size() < 2)
      throw data::Error("{}: clean: found a prompt of {} tokens, expected at least 2", where_, out.clean.size());
    if (object_.contains("corrupted")) {
      out.corrupted = tokens("corrupted");
      if (out.corrupted.size() != out.clean.size())
        throw data::Error("{}: corrupted: found {} tokens, expected {} as in clean", where_, out.corrupted.size(),
                          out.clean.size());
    }
    if (object_.contains("distractor")) {
      out.distractor = one_token("distractor");
      if (out.distractor == out.answer)
        throw data::Error("{}: distractor: found the answer, id {}, expected another token", where_, out.answer);
    }
    if (object_.contains("group")) {
      const json& group = object_["group"];
      if (!group.is_number_integer() && !group.is_string())
        throw data::Error("{}: group: found {}, expected an integer or a string", where_, data::excerpt(group));
      out.group = group.dump();
    }
    return out;
  }

  /// The keys that all lines have or none.
  std::string optional_keys() const {
    std::string out;
    for (const char* key : {"corrupted", "distractor", "group"})
      if (object_.contains(key)) out += (out.empty() ? "" : ", ") + std::string(key);
    return out.empty() ? "none of corrupted, distractor, group" : out;
  }

 private:
  Ids tokens(const std::string& key) const {
    const json& value = data::json_member(object_, key, where_);
    const std::string at = where_ + ": " + key;
    if (!value.is_string()) return checked(data::json_value<Ids>(value, at), at);
    if (vocab_size_ != data::byte_tokenizer::vocab_size)
      throw data::Error(
          "{}: found text, expected token ids: the model's vocabulary of {} is not bytes (scripts/prepare_task.py "
          "turns text into ids)",
          at, vocab_size_);
    Ids ids;
    data::byte_tokenizer::encode(value.get_ref<const std::string&>(), ids);
    return ids;
  }

  std::int32_t one_token(const std::string& key) const {
    const json& value = data::json_member(object_, key, where_);
    const std::string at = where_ + ": " + key;
    const Ids ids = value.is_number() ? checked({data::json_value<std::int32_t>(value, at)}, at) : tokens(key);
    if (ids.size() != 1) throw data::Error("{}: found {} tokens, expected one", at, ids.size());
    return ids.front();
  }

  Ids checked(Ids ids, const std::string& at) const {
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocab_size_)
        throw data::Error("{}: found id {}, expected 0 to {} (the model's vocabulary)", at, id, vocab_size_ - 1);
    }
    return ids;
  }

  std::string where_;
  std::int64_t vocab_size_;
  json object_;
};

std::vector<Prompt> parse_prompts(std::string_view text, const std::string& where, std::int64_t vocab_size) {
  std::vector<Prompt> prompts;
  std::string first_keys;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string at = fmt::format("{}: line {}", where, prompts.size() + 1);
    const Line line(text.substr(0, end), at, vocab_size);
    const std::string keys_of_line = line.optional_keys();
    if (prompts.empty()) first_keys = keys_of_line;
    if (keys_of_line != first_keys)
      throw data::Error("{}: found {}, expected {} as in line 1", at, keys_of_line, first_keys);
    prompts.push_back(line.prompt());
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (prompts.empty()) throw data::Error("{}: found no line, expected prompts", where);
  return prompts;
}

}  // namespace

Task parse_task(std::string_view text, const std::string& where, std::int64_t vocab_size, Direction direction) {
  const std::vector<Prompt> prompts = parse_prompts(text, where, vocab_size);
  const auto longest = std::max_element(
      prompts.begin(), prompts.end(), [](const Prompt& a, const Prompt& b) { return a.clean.size() < b.clean.size(); });
  const std::int64_t positions = std::ssize(longest->clean) + 1;  // the answer is the last
  if (positions > most_tokens / std::ssize(prompts))
    throw data::Error("{}: found {} prompts of up to {} tokens, expected at most {} tokens in all, with padding", where,
                      prompts.size(), positions - 1, most_tokens);
  const bool corrupted = !prompts.front().corrupted.empty();
  if (!corrupted && direction == Direction::denoising)
    throw data::Error("{}: found no corrupted prompts, expected them for denoising", where);

  const std::string name = std::filesystem::path(where).filename().string();
  ProbeTokens clean{std::ssize(prompts), positions, {}, name + ", clean"},
      other{corrupted ? std::ssize(prompts) : 0, corrupted ? positions : 0, {}, name + ", corrupted"};
  std::vector<std::int64_t> documents;
  std::vector<Answer> answers;
  std::map<std::string, std::int64_t> groups;
  for (const Prompt& prompt : prompts) {
    const auto add = [&](ProbeTokens& tokens, const Ids& ids) {
      tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
      tokens.ids.push_back(prompt.answer);
      tokens.ids.resize(tokens.ids.size() + static_cast<std::size_t>(positions - std::ssize(ids) - 1), 0);
    };
    add(clean, prompt.clean);
    if (corrupted) add(other, prompt.corrupted);
    const auto number = std::ssize(answers);
    documents.push_back(prompt.group.empty() ? number : groups.emplace(prompt.group, number).first->second);
    answers.push_back({std::ssize(prompt.clean) - 1, prompt.distractor});
  }
  if (direction == Direction::denoising) std::swap(clean, other);
  clean.documents = std::move(documents);
  clean.answers = std::move(answers);
  return {std::move(clean), std::move(other), data::sha256_text(text)};
}

Task load_task(const std::filesystem::path& file, std::int64_t vocab_size, Direction direction) {
  return parse_task(data::read_text(file), file.string(), vocab_size, direction);
}

}  // namespace routescope::analysis
