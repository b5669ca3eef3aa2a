// Static figures: panels with axes, lines with bands, marks with intervals, as SVG text that stands in a page.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace routescope::analysis {

/// Data to pixels.
struct Scale {
  double low = 0, high = 1;  // of the data
  double from = 0, to = 1;   // pixels of low and high
  bool log1p = false;        // ln(1 + value): training steps from 0 on

  double operator()(double value) const;
};

struct Tick {
  double value = 0;
  std::string label;
};
/// Round numbers between low and high, at most `count` and a few.
std::vector<Tick> round_ticks(double low, double high, int count = 5);
/// 0, 1, 10, 100, ... up to `high`, and `high` itself where there is room.
std::vector<Tick> step_ticks(double high);

struct Stroke {
  std::string_view colour = "#1b1f24";
  double width = 1.5, opacity = 1;
  std::string_view dash = {};
};

enum class Mark { circle, square, triangle };

/// A drawing of so many CSS pixels; the page scales it to its width. Coordinates are pixels, the origin top left. NaN
/// interrupts lines and bands and leaves marks out.
class Svg {
 public:
  /// `label` says what the figure shows to those who do not see it.
  Svg(double width, double height, std::string_view label);

  void line(double x1, double y1, double x2, double y2, const Stroke& stroke);
  void polyline(std::span<const double> x, std::span<const double> y, const Stroke& stroke);
  /// The area between two curves.
  void band(std::span<const double> x, std::span<const double> lower, std::span<const double> upper,
            std::string_view colour, double opacity);
  void rect(double x, double y, double width, double height, std::string_view fill, std::string_view tooltip = {});
  /// A mark of about 2 `size` across; hollow if `fill` is empty. The tooltip appears where a pointer rests on it.
  void mark(double x, double y, Mark shape, double size, std::string_view colour, bool filled,
            std::string_view tooltip = {}, double opacity = 1);
  /// `anchor`: start, middle or end; `style`: one of the page's classes (tick, title, note) or empty. Turned by -90
  /// degrees if `upright`.
  void text(double x, double y, std::string_view text, std::string_view anchor = "start", std::string_view style = {},
            bool upright = false);

  /// The whole element.
  std::string str() const;

 private:
  std::string open_, body_;
};

/// Axes with grid lines, ticks and a title above; x grows to the right, y upwards. Both scales give its place.
struct Panel {
  Svg& svg;
  Scale x, y;

  void frame(std::string_view title, std::span<const Tick> x_ticks, std::span<const Tick> y_ticks) const;
  void line(std::span<const double> at, std::span<const double> values, const Stroke& stroke) const;
  void band(std::span<const double> at, std::span<const double> lower, std::span<const double> upper,
            std::string_view colour, double opacity) const;
};

/// Zero, and the finite values that were added.
struct Range {
  double low = 0, high = 0;
  void add(double value);
  void add(std::span<const double> values);
  Range widened() const;  // by a twentieth, away from zero; {0, 1} of nothing
};

}  // namespace routescope::analysis
