#include "analysis/report/page.h"

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

#include "analysis/report/web.h"

namespace routescope::analysis {

std::string escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string_view page_style() {
  constexpr std::string_view open = "<style>", close = "</style>";
  const std::size_t begin = report_template.find(open), end = report_template.find(close);
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin)
    throw std::logic_error("the report's template lacks a style element");
  return report_template.substr(begin + open.size(), end - begin - open.size());
}

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

std::string percent_text(double share, int decimals) {
  return std::isnan(share) ? "\u2013" : fmt::format("{:.{}f}\u00a0%", 100 * share, decimals);
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

}  // namespace routescope::analysis
