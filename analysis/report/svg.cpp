#include "analysis/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/report/page.h"

namespace routescope::analysis {
namespace {

std::string stroke_attributes(const Stroke& stroke) {
  std::string out = fmt::format(R"( stroke="{}" stroke-width="{:g}")", stroke.colour, stroke.width);
  if (stroke.opacity != 1) out += fmt::format(R"( stroke-opacity="{:g}")", stroke.opacity);
  if (!stroke.dash.empty()) out += fmt::format(R"( stroke-dasharray="{}")", stroke.dash);
  return out;
}

/// "M x y L x y ..." of each run of points without NaN.
std::string path_of(std::span<const double> x, std::span<const double> y) {
  std::string path;
  bool pen_down = false;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(x[i]) && std::isfinite(y[i])) {
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x[i], y[i]);
      pen_down = true;
    } else {
      pen_down = false;
    }
  }
  return path;
}

std::string with_tooltip(std::string_view element, std::string_view name, std::string_view tooltip) {
  if (tooltip.empty()) return fmt::format("{}/>\n", element);
  return fmt::format("{}><title>{}</title></{}>\n", element, escape_html(tooltip), name);
}

}  // namespace

double Scale::operator()(double value) const {
  const auto along = [&](double v) { return log1p ? std::log1p(v) : v; };
  return from + (to - from) * (along(value) - along(low)) / (along(high) - along(low));
}

std::vector<Tick> round_ticks(double low, double high, int count) {
  const double rough = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double nice : {1.0, 2.0, 5.0}) {
    if (nice * power >= rough * 0.999) {
      step = nice * power;
      break;
    }
  }
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  std::vector<Tick> out;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    out.push_back({i * step, number_text(fmt::format("{{:.{}f}}", decimals).c_str(), i == 0 ? 0.0 : i * step)});
  return out;
}

std::vector<Tick> step_ticks(double high) {
  std::vector<Tick> out{{0, "0"}};
  for (double step = 1; step <= high; step *= 10) out.push_back({step, fmt::format("{:.0f}", step)});
  if (high > 2 * out.back().value) out.push_back({high, fmt::format("{:.0f}", high)});
  return out;
}

Svg::Svg(double width, double height, std::string_view label)
    : open_(
          fmt::format(R"(<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">)",
                      width, height, escape_html(label))) {}

void Svg::line(double x1, double y1, double x2, double y2, const Stroke& stroke) {
  if (!std::isfinite(x1 + y1 + x2 + y2)) return;
  body_ += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"{}/>)", x1, y1, x2, y2,
                       stroke_attributes(stroke)) +
           "\n";
}

void Svg::polyline(std::span<const double> x, std::span<const double> y, const Stroke& stroke) {
  const std::string path = path_of(x, y);
  if (!path.empty())
    body_ +=
        fmt::format(R"(<path d="{}" fill="none" stroke-linejoin="round"{}/>)", path, stroke_attributes(stroke)) + "\n";
}

void Svg::band(std::span<const double> x, std::span<const double> lower, std::span<const double> upper,
               std::string_view colour, double opacity) {
  const auto there = [&](std::size_t i) { return std::isfinite(x[i] + lower[i] + upper[i]); };
  for (std::size_t begin = 0; begin < x.size();) {
    std::size_t end = begin;
    while (end < x.size() && there(end)) ++end;
    if (end > begin + 1) {
      std::string points;
      for (std::size_t i = begin; i < end; ++i) points += fmt::format("{:.1f},{:.1f} ", x[i], upper[i]);
      for (std::size_t i = end; i-- > begin;) points += fmt::format("{:.1f},{:.1f} ", x[i], lower[i]);
      points.pop_back();
      body_ += fmt::format(R"(<polygon points="{}" fill="{}" fill-opacity="{:g}"/>)", points, colour, opacity) + "\n";
    }
    begin = std::max(end, begin + 1);
  }
}

void Svg::rect(double x, double y, double width, double height, std::string_view fill, std::string_view tooltip) {
  body_ += with_tooltip(
      fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}")", x, y, width, height, fill),
      "rect", tooltip);
}

void Svg::mark(double x, double y, Mark shape, double size, std::string_view colour, bool filled,
               std::string_view tooltip, double opacity) {
  if (!std::isfinite(x + y)) return;
  const std::string paint = fmt::format(R"(fill="{}" stroke="{}" stroke-width="1.5" opacity="{:g}")",
                                        filled ? colour : "#fff", colour, opacity);
  switch (shape) {
    case Mark::circle:
      body_ += with_tooltip(fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" {})", x, y, size, paint), "circle",
                            tooltip);
      break;
    case Mark::square:
      body_ += with_tooltip(fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:g}" height="{:g}" {})", x - 0.9 * size,
                                        y - 0.9 * size, 1.8 * size, 1.8 * size, paint),
                            "rect", tooltip);
      break;
    case Mark::triangle:
      body_ += with_tooltip(fmt::format(R"(<polygon points="{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}" {})", x,
                                        y - size, x - size, y + 0.8 * size, x + size, y + 0.8 * size, paint),
                            "polygon", tooltip);
      break;
  }
}

void Svg::text(double x, double y, std::string_view text, std::string_view anchor, std::string_view style,
               bool upright) {
  body_ += fmt::format(R"(<text x="{0:.1f}" y="{1:.1f}" text-anchor="{2}"{3}{4}>{5}</text>)", x, y, anchor,
                       style.empty() ? std::string() : fmt::format(R"( class="{}")", style),
                       upright ? fmt::format(R"x( transform="rotate(-90 {:.1f} {:.1f})")x", x, y) : std::string(),
                       escape_html(text)) +
           "\n";
}

std::string Svg::str() const {
  return open_ + "\n" + body_ + "</svg>\n";
}

void Panel::frame(std::string_view title, std::span<const Tick> x_ticks, std::span<const Tick> y_ticks) const {
  const Stroke grid{.colour = "#e6e9ec", .width = 1}, axis{.colour = "#3d444d", .width = 1};
  for (const Tick& tick : y_ticks) {
    const double at = y(tick.value);
    svg.line(x.from, at, x.to, at, tick.value == 0 ? Stroke{.colour = "#7b848e", .width = 1} : grid);
    svg.text(x.from - 6, at + 4, tick.label, "end", "tick");
  }
  svg.line(x.from, y.from, x.to, y.from, axis);
  for (const Tick& tick : x_ticks) {
    const double at = x(tick.value);
    svg.line(at, y.from, at, y.from + 4, axis);
    svg.text(at, y.from + 17, tick.label, "middle", "tick");
  }
  if (!title.empty()) svg.text(x.from, y.to - 10, title, "start", "title");
}

void Panel::line(std::span<const double> at, std::span<const double> values, const Stroke& stroke) const {
  std::vector<double> px, py;
  for (double value : at) px.push_back(x(value));
  for (double value : values) py.push_back(y(value));
  svg.polyline(px, py, stroke);
}

void Panel::band(std::span<const double> at, std::span<const double> lower, std::span<const double> upper,
                 std::string_view colour, double opacity) const {
  std::vector<double> px, py_lower, py_upper;
  for (double value : at) px.push_back(x(value));
  for (double value : lower) py_lower.push_back(y(value));
  for (double value : upper) py_upper.push_back(y(value));
  svg.band(px, py_lower, py_upper, colour, opacity);
}

void Range::add(double value) {
  if (!std::isfinite(value)) return;
  low = std::min(low, value);
  high = std::max(high, value);
}

void Range::add(std::span<const double> values) {
  for (double value : values) add(value);
}

Range Range::widened() const {
  if (low == high) return {0, 1};
  const double more = (high - low) / 20;
  return {low < 0 ? low - more : 0, high > 0 ? high + more : 0};
}

}  // namespace routescope::analysis
