#include "analysis/report/wording.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "analysis/routes/slices.h"

namespace routescope::analysis {
namespace {

model::Family slice_family(int slice) {
  return static_cast<model::Family>(slice / 6);
}
model::Sublayer slice_sublayer(int slice) {
  return static_cast<model::Sublayer>(slice / 3 % 2);
}
model::Depth slice_depth(int slice) {
  return static_cast<model::Depth>(slice % 3);
}

std::string sublayer_word(model::Sublayer sublayer) {
  return sublayer == model::Sublayer::attn ? "attention" : "MLP";
}

}  // namespace

std::string number_text(const char* format, double value) {
  if (std::isnan(value)) return "\u2013";
  if (std::isinf(value)) return value > 0 ? "\u221e" : "\u2212\u221e";
  std::string text = fmt::format(fmt::runtime(format), value), out;
  // What rounds to zero has no sign of its own.
  if (text.find_first_of("123456789") == std::string::npos) text = fmt::format(fmt::runtime(format), 0.0);
  for (char c : text) {
    if (c == '-') {
      out += "\u2212";
    } else {
      out += c;
    }
  }
  return out;
}

std::string percent_text(double share) {
  return std::isnan(share) ? "\u2013" : number_text("{:.1f}", 100 * share) + "\u00a0%";
}

std::string estimate_text(const Estimate& estimate, const char* format) {
  std::string out = number_text(format, estimate.value);
  if (!std::isnan(estimate.ci.lower) && !std::isnan(estimate.ci.upper)) {
    out += fmt::format(" [{}, {}]", number_text(format, estimate.ci.lower), number_text(format, estimate.ci.upper));
  }
  return out;
}

std::string onset_text(const Estimate& onset, std::span<const std::int64_t> steps) {
  if (steps.size() < 2) return "\u2013";
  if (std::isnan(onset.value)) return "not shown";
  const auto step = [](double value) {
    return std::isfinite(value) ? fmt::format("{:.0f}", value) : std::string("never");
  };
  std::string out = onset.value <= static_cast<double>(steps.front()) ? "at or before " : "";
  out += step(onset.value);
  if (!std::isnan(onset.ci.lower) && !std::isnan(onset.ci.upper))
    out += fmt::format(" [{}, {}]", step(onset.ci.lower), step(onset.ci.upper));
  return out;
}

std::string thousands_text(std::int64_t value) {
  std::string text = std::to_string(value);
  const std::ptrdiff_t first = value < 0 ? 1 : 0;
  for (std::ptrdiff_t at = std::ssize(text) - 3; at > first; at -= 3)
    text.insert(static_cast<std::size_t>(at), "\u202f");
  return text;
}

std::string list_text(const std::vector<std::string>& items) {
  if (items.empty()) return "none";
  std::string out = items.front();
  for (std::size_t i = 1; i < items.size(); ++i) out += (i + 1 == items.size() ? " and " : ", ") + items[i];
  return out;
}

std::string slices_text(const std::vector<int>& slices) {
  // Families into readers; readers of one depth are named together.
  std::map<model::Family, std::map<model::Depth, std::vector<std::string>>> readers;
  for (int slice : slices)
    readers[slice_family(slice)][slice_depth(slice)].push_back(sublayer_word(slice_sublayer(slice)));
  std::string out;
  for (const auto& [family, depths] : readers) {
    if (!out.empty()) out += "; ";
    out += model::to_string(family) + " \u2192 ";
    bool first = true;
    for (const auto& [depth, kinds] : depths) {
      if (!first) out += ", ";
      first = false;
      out += model::to_string(depth) + " " + kinds.front() + (kinds.size() > 1 ? " and " + kinds.back() : "");
    }
  }
  return out;
}

std::string set_text(const std::string& name) {
  for (int slice = 0; slice < num_slices; ++slice) {
    if (slice_name(static_cast<std::size_t>(slice)) == name) return slices_text({slice});
  }
  return name;
}

}  // namespace routescope::analysis
