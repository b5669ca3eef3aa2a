#include "analysis/results/token_classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"

namespace routescope::analysis {
namespace {

/// Class of every predicted token: class_of(ids of its sequence, its position).
template <class ClassOf>
std::vector<int> classify(const ProbeTokens& tokens, const ClassOf& class_of) {
  std::vector<int> classes;
  for (std::int64_t q = 0; q < tokens.sequences; ++q) {
    const auto ids =
        std::span(tokens.ids)
            .subspan(static_cast<std::size_t>(q * tokens.positions), static_cast<std::size_t>(tokens.positions));
    for (std::size_t position = 1; position < ids.size(); ++position) {
      const bool scored = !tokens.is_task() || static_cast<std::int64_t>(position) == tokens.length(q);
      classes.push_back(scored ? class_of(ids, position) : -1);
    }
  }
  return classes;
}

TokenClasses by_position(const ProbeTokens& tokens) {
  TokenClasses out{"position", {}, {}};
  for (std::int64_t first = 1; first < tokens.positions; first *= 2) {
    const std::int64_t last = std::min(2 * first, tokens.positions) - 1;
    out.labels.push_back(first == last ? std::to_string(first) : fmt::format("{}-{}", first, last));
  }
  out.of_token = classify(tokens, [](auto, std::size_t position) { return std::bit_width(position) - 1; });
  return out;
}

TokenClasses by_repeat(const ProbeTokens& tokens) {
  return {"repeat", {"first", "repeat"}, classify(tokens, [](std::span<const std::int32_t> ids, std::size_t position) {
            const auto before = ids.first(position);
            return std::find(before.begin(), before.end(), ids[position]) == before.end() ? 0 : 1;
          })};
}

TokenClasses by_file(const ProbeTokens& tokens, const std::string& file) {
  // In the order of the file.
  const auto classes = data::parse_json<nlohmann::ordered_json>(data::read_text(file), file);
  if (!classes.is_object() || classes.empty())
    throw data::Error("{}: found {}, expected an object of classes: {{\"name\": [token ids], ...}}", file,
                      classes.is_object() ? "no class" : classes.type_name());
  TokenClasses out{"class", {}, {}};
  std::map<std::int32_t, int> class_of;
  for (const auto& [label, ids] : classes.items()) {
    if (!ids.is_array())
      throw data::Error("{}: class '{}': found {}, expected token ids", file, data::shortened(label), ids.type_name());
    const int number = static_cast<int>(out.labels.size());
    for (const auto& id : ids) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max())
        throw data::Error("{}: class '{}': found {}, expected a token id", file, data::shortened(label),
                          data::excerpt(id));
      const auto [entry, fresh] = class_of.emplace(id.get<std::int32_t>(), number);
      if (!fresh && entry->second != number) {
        throw data::Error("{}: id {}: is in class '{}' and in '{}', expected one class", file, entry->first,
                          data::shortened(out.labels[static_cast<std::size_t>(entry->second)]), data::shortened(label));
      }
    }
    out.labels.push_back(label);
  }
  out.of_token = classify(tokens, [&](std::span<const std::int32_t> ids, std::size_t position) {
    const auto found = class_of.find(ids[position]);
    return found == class_of.end() ? -1 : found->second;
  });
  return out;
}

}  // namespace

std::vector<TokenClasses> token_classes(const ProbeTokens& tokens, const ProbeSettings& settings) {
  std::vector<TokenClasses> classes;
  if (settings.by_position) classes.push_back(by_position(tokens));
  if (settings.by_repeat) classes.push_back(by_repeat(tokens));
  if (!settings.class_file.empty()) classes.push_back(by_file(tokens, settings.class_file));
  return classes;
}

}  // namespace routescope::analysis
