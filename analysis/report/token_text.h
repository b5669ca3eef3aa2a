// Token ids as text for people: what a vocabulary calls each of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>

namespace routescope::analysis {

class TokenText {
 public:
  /// A Hugging Face tokenizer.json, byte-level or not. Throws Error naming the file and what it lacks.
  static TokenText load(const std::filesystem::path& tokenizer_json);
  /// The same from the file's text; `where` names it.
  static TokenText parse(const std::string& tokenizer_json, const std::string& where);
  /// The built-in bytes for their vocabulary; else the ids themselves.
  static TokenText builtin(std::int64_t vocab_size);

  /// UTF-8. A token that is a piece of a character is written as its bytes, "\xE2"; one that is not known as "<ID>".
  std::string operator()(std::int64_t id) const;

 private:
  bool bytes_ = false;
  std::unordered_map<std::int64_t, std::string> text_;
};

}  // namespace routescope::analysis
