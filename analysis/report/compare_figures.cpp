// The figures of a study's page. Lines are single runs, bands and large marks what they say together.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/commands/tables.h"
#include "analysis/report/compare.h"
#include "analysis/report/page.h"
#include "analysis/report/svg.h"

namespace routescope::analysis {
namespace {

constexpr std::string_view grey = "#7b848e", cause = "#d55e00", by_mass = "#0072b2";
constexpr double margin_left = 58, margin_top = 44, margin_bottom = 46;

/// The report's colours of the families, in the order of the slices.
std::string_view family_colour(std::size_t slice) {
  constexpr std::string_view colours[] = {"#e69f00", "#0072b2", "#009e73"};
  return colours[slice / 6];
}

std::vector<double> steps_of(const Study& study) {
  return {study.steps.begin(), study.steps.end()};
}

struct Curve {
  std::vector<double> value, lower, upper;

  explicit Curve(const std::vector<Estimate>& estimates) {
    for (const Estimate& estimate : estimates) {
      value.push_back(estimate.value);
      lower.push_back(estimate.ci.lower);
      upper.push_back(estimate.ci.upper);
    }
  }
};

/// An onset below the steps' axis: a mark, and its interval as a line, which has no end where it is infinite.
void draw_onset(const Study& study, const Panel& panel, const Estimate& onset, double y, Mark shape,
                std::string_view colour, std::string_view what) {
  if (std::isnan(onset.value) || study.steps.size() < 2) return;
  const double lower = std::isnan(onset.ci.lower) ? onset.value : onset.ci.lower,
               upper = std::isfinite(onset.ci.upper) ? onset.ci.upper
                       : std::isnan(onset.ci.upper)  ? onset.value
                                                     : panel.x.high;
  panel.svg.line(panel.x(lower), y, panel.x(std::min(upper, panel.x.high)), y, {.colour = colour, .width = 2});
  panel.svg.mark(panel.x(onset.value), y, shape, 4.5, colour, true,
                 fmt::format("onset by {}: {}", what, onset_text(onset, study.steps)));
}

void draw_motif(Svg& svg, const Study& study, const Motif& motif, const Panel& panel) {
  const std::vector<double> steps = steps_of(study);
  const Curve effect(motif.effect), control(motif.control);
  panel.band(steps, control.lower, control.upper, grey, 0.18);
  panel.band(steps, effect.lower, effect.upper, cause, 0.18);
  panel.line(steps, control.value, {.colour = grey, .width = 1.6, .dash = "5 4"});
  for (const StudyRun& run : study.runs) {
    for (const Motif& own : run.findings.motifs) {
      if (own.name == motif.name)
        panel.line(steps, Curve(own.effect).value, {.colour = cause, .width = 1, .opacity = 0.45});
    }
  }
  panel.line(steps, effect.value, {.colour = cause, .width = 2.2});
  const double below = panel.y.from + 30;
  draw_onset(study, panel, motif.onset, below, Mark::triangle, cause, "cause");
  draw_onset(study, panel, motif.mass_onset, below + 12, Mark::square, by_mass, "mass");
  if (std::isnan(motif.onset.value) && std::isnan(motif.mass_onset.value))
    svg.text(panel.x.from, below + 4, "no onset is shown by cause or by mass", "start", "note");
}

}  // namespace

std::string emergence_figure(const Study& study) {
  std::vector<const Motif*> shown;
  for (const Motif& motif : study.pooled.motifs) {
    if (motif.of_paper) shown.push_back(&motif);
  }
  if (shown.empty()) return {};
  const double width = 1072, height = 320, gap = 34;
  const double each =
      (width - margin_left - 12 - gap * static_cast<double>(shown.size() - 1)) / static_cast<double>(shown.size());
  Range range;
  for (const Motif* motif : shown) {
    for (const auto* estimates : {&motif->effect, &motif->control}) {
      const Curve curve(*estimates);
      range.add(curve.value);
      range.add(curve.lower);
      range.add(curve.upper);
    }
  }
  const Range y = range.widened();
  const double last = static_cast<double>(study.steps.back());
  Svg svg(width, height, "Effect of each motif over training steps, beside its matched control");
  svg.text(14, (margin_top + height - 76) / 2, "\u0394 nll, nats/token", "middle", "note", true);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const double left = margin_left + (each + gap) * static_cast<double>(i);
    const Panel panel{svg,
                      {.low = 0, .high = std::max(1.0, last), .from = left, .to = left + each, .log1p = true},
                      {.low = y.low, .high = y.high, .from = height - 76, .to = margin_top}};
    panel.frame(shown[i]->name, step_ticks(last), round_ticks(y.low, y.high));
    draw_motif(svg, study, *shown[i], panel);
    if (i + 1 == shown.size()) svg.text(left + each, height - 6, "training step", "end", "note");
  }
  return svg.str();
}

std::string plane_figure(const Study& study) {
  const std::size_t last = study.last();
  if (study.runs.front().record.rows[last].ablations.empty()) return {};
  const auto effects = [&](const StudyRun& run) -> const AblationEffects& {
    return run.record.rows[last].ablations.front();
  };
  Range x_range, y_range;
  for (const StudyRun& run : study.runs) {
    x_range.add(run.record.rows[last].mass);
    y_range.add(effects(run).delta_nll());
  }
  const Range x = x_range.widened(), y = y_range.widened();
  const double width = 760, height = 420;
  Svg svg(width, height, "Mass and effect of the 18 slices at the last step");
  const Panel panel{svg,
                    {.low = x.low, .high = x.high, .from = margin_left, .to = width - 160},
                    {.low = y.low, .high = y.high, .from = height - margin_bottom, .to = margin_top - 24}};
  panel.frame("", round_ticks(x.low, x.high), round_ticks(y.low, y.high));
  svg.text(14, (height - margin_bottom + margin_top) / 2, "\u0394 nll, nats/token", "middle", "note", true);
  svg.text(panel.x.to, height - 8, "mass", "end", "note");
  for (std::size_t s = 0; s < num_slices; ++s) {
    std::vector<double> mass, effect;
    const Mark shape = s / 3 % 2 == 0 ? Mark::circle : Mark::square;
    for (const StudyRun& run : study.runs) {
      mass.push_back(run.record.rows[last].mass[s]);
      effect.push_back(effects(run).sets[s].delta_nll.value);
    }
    const OverRuns m = over_runs(mass), e = over_runs(effect);
    const double px = panel.x(m.mean), py = panel.y(e.mean);
    for (std::size_t r = 0; r < study.runs.size(); ++r) {
      svg.line(px, py, panel.x(mass[r]), panel.y(effect[r]), {.colour = family_colour(s), .width = 1, .opacity = 0.5});
    }
    constexpr double sizes[] = {3.5, 5, 6.5};
    svg.mark(px, py, shape, sizes[s % 3], family_colour(s), s % 3 != 1,
             fmt::format("{}: mass {}, effect {} (from {} to {} over runs)", slice_name(s),
                         number_text("{:.3f}", m.mean), number_text("{:+.4f}", e.mean), number_text("{:+.4f}", e.least),
                         number_text("{:+.4f}", e.greatest)));
  }
  double at = margin_top;
  const auto key = [&](Mark shape, double size, std::string_view colour, bool filled, std::string_view label) {
    svg.mark(width - 136, at - 4, shape, size, colour, filled);
    svg.text(width - 122, at, label, "start", "tick");
    at += 19;
  };
  constexpr std::string_view ink = "#3d444d";
  for (std::size_t f = 0; f < 3; ++f)
    key(Mark::circle, 5, family_colour(6 * f), true, std::vector{"embedding", "history", "current"}[f]);
  at += 8;
  key(Mark::circle, 5, ink, true, "attention");
  key(Mark::square, 5, ink, true, "MLP");
  at += 8;
  key(Mark::circle, 3.5, ink, true, "early");
  key(Mark::circle, 5, ink, false, "mid");
  key(Mark::circle, 6.5, ink, true, "late");
  return svg.str();
}

std::string content_figure(const Study& study) {
  const std::vector<double> steps = steps_of(study);
  Range range;
  std::vector<std::vector<double>> curves;
  for (const StudyRun& run : study.runs) {
    curves.emplace_back();
    for (const Content& content : run.findings.content) curves.back().push_back(content.mean_share);
    range.add(curves.back());
  }
  double wrapped = std::numeric_limits<double>::quiet_NaN();
  if (study.baseline) wrapped = find(*study.baseline).content.back().mean_share;
  if (!std::isnan(wrapped)) range.add(wrapped);
  const Range y = range.widened();
  const double width = 760, height = 280;
  Svg svg(width, height, "Share of the variance of the weights that lies between tokens, over training steps");
  const Panel panel{
      svg,
      {.low = 0, .high = std::max(1.0, steps.back()), .from = margin_left, .to = width - 100, .log1p = true},
      {.low = y.low, .high = y.high, .from = height - margin_bottom, .to = margin_top - 24}};
  panel.frame("", step_ticks(steps.back()), round_ticks(y.low, y.high));
  svg.text(14, height / 2, "share between tokens", "middle", "note", true);
  svg.text(panel.x.to, height - 8, "training step", "end", "note");
  std::vector<double> mean;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::vector<double> here;
    for (const std::vector<double>& curve : curves) here.push_back(curve[i]);
    mean.push_back(over_runs(here).mean);
  }
  for (const std::vector<double>& curve : curves)
    panel.line(steps, curve, {.colour = "#009e73", .width = 1, .opacity = 0.5});
  panel.line(steps, mean, {.colour = "#009e73", .width = 2.2});
  if (!std::isnan(wrapped)) {
    svg.mark(panel.x.to + 12, panel.y(wrapped), Mark::circle, 4.5, grey, false,
             "wrapped baseline: " + percent_text(wrapped) + " of the variance between tokens");
    svg.text(panel.x.to + 22, panel.y(wrapped) + 4, "wrapped", "start", "tick");
  }
  return svg.str();
}

std::string atlas_figure(const Study& study) {
  const std::size_t last = study.last();
  std::vector<const Atlas*> atlases;
  for (const StudyRun& run : study.runs) {
    if (!run.record.rows[last].atlas.empty()) atlases.push_back(&run.record.rows[last].atlas);
  }
  if (atlases.empty()) return {};
  const model::ReadPlan plan(study_model(study));
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  std::vector<double> mean;
  double greatest = 0;
  for (std::size_t i = 0; i < reads * columns; ++i) {
    std::vector<double> here;
    for (const Atlas* atlas : atlases) here.push_back(atlas->first_order[i].value);
    mean.push_back(over_runs(here).mean);
    if (!std::isnan(mean.back())) greatest = std::max(greatest, std::abs(mean.back()));
  }
  const double cell_x = 34, cell_y = 22, left = 84, top = 10;
  Svg svg(left + cell_x * static_cast<double>(reads) + 10, top + cell_y * static_cast<double>(columns) + 58,
          "First-order effect of every route, mean over runs");
  for (std::size_t c = 0; c < columns; ++c) {
    const double y = top + cell_y * static_cast<double>(c);
    svg.text(left - 6, y + 15, plan.columns[c], "end", "tick");
    for (std::size_t r = 0; r < reads; ++r) {
      const double value = mean[r * columns + c], x = left + cell_x * static_cast<double>(r);
      if (std::isnan(value)) continue;
      // Square roots let small effects be seen beside large ones; orange hurts the model's loss, blue helps it.
      const double strength = greatest > 0 ? std::sqrt(std::abs(value) / greatest) : 0;
      const auto mix = [&](int full) { return 247 + static_cast<int>(std::lround(strength * (full - 247))); };
      const std::string fill = value >= 0 ? fmt::format("#{:02x}{:02x}{:02x}", mix(179), mix(66), mix(0))
                                          : fmt::format("#{:02x}{:02x}{:02x}", mix(0), mix(82), mix(142));
      svg.rect(x, y, cell_x - 1, cell_y - 1, fill,
               fmt::format("{} \u2190 {}: {} nats/token", plan.reads[r].name, plan.columns[c],
                           number_text("{:+.5f}", value)));
    }
  }
  const double below = top + cell_y * static_cast<double>(columns);
  for (std::size_t r = 0; r < reads; ++r) {
    svg.text(left + cell_x * (static_cast<double>(r) + 0.5) + 4, below + 8, plan.reads[r].name, "end", "tick", true);
  }
  return svg.str();
}

}  // namespace routescope::analysis
