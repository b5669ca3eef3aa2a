// Classes of predicted tokens that effects are also given for.
#pragma once

#include <string>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/results/settings.h"

namespace routescope::analysis {

/// One way to class tokens: by position, by repetition, or by a file.
struct TokenClasses {
  std::string name;                 // "position", "repeat", "class"
  std::vector<std::string> labels;  // of the classes
  std::vector<int> of_token;  // [sequences, positions - 1]: class of each predicted token, -1: none, or not scored

  bool operator==(const TokenClasses&) const = default;
};

/// The classes that the settings ask for, in the order position, repeat, class. Positions are in bins 1, 2-3, 4-7, ...;
/// repeat: whether the token occurred before in its sequence. Throws Error naming the class file and what is wrong
/// there.
std::vector<TokenClasses> token_classes(const ProbeTokens& tokens, const ProbeSettings& settings);

}  // namespace routescope::analysis
