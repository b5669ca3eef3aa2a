// index.html of a study: claims, figures and tables as HTML and SVG that need no script, and nothing from elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/commands/tables.h"
#include "analysis/report/compare.h"
#include "analysis/report/page.h"
#include "data/base/build.h"
#include "data/base/command_line.h"
#include "model/pass/parameters.h"

namespace routescope::analysis {
namespace {

constexpr const char* own_style = R"css(
.claims { list-style: none; padding: 0; margin: 12px 0 0; max-width: 900px; }
.claims > li { border-left: 4px solid var(--accent); padding: 2px 0 2px 14px; margin: 0 0 18px; }
.claims h3 { font-size: 16px; margin: 0; font-weight: 600; }
.claims .verdict { margin: 2px 0 4px; font: 600 14px/1.4 var(--label); color: var(--accent); }
.claims ul { margin: 0; padding-left: 18px; font-size: 15px; }
table.study td, table.study th { text-align: right; cursor: auto; }
table.study td:first-child, table.study th:first-child { text-align: left; }
table.study td, table.study thead th { white-space: normal; }
table.study tbody tr:nth-child(6n) td { border-bottom: 0; }
pre { font-size: 13px; overflow-x: auto; background: #f6f8fa; padding: 8px 10px; }
)css";

std::string row_of(const std::vector<std::string>& cells, const char* kind) {
  std::string out = "<tr>";
  for (const std::string& cell : cells) out += fmt::format("<{0}>{1}</{0}>", kind, escape_html(cell));
  return out + "</tr>\n";
}

std::string table_of(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table class=\"study\"><thead>" + row_of(head, "th") + "</thead><tbody>\n";
  for (const std::vector<std::string>& row : rows) out += row_of(row, "td");
  return out + "</tbody></table></div>\n";
}

std::string section(const char* id, const char* title, const std::string& body) {
  if (body.empty()) return {};
  return fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", id, title, body);
}

std::string figure(const std::string& drawing, const std::string& caption) {
  if (drawing.empty()) return {};
  return fmt::format("<figure>\n{}<figcaption>{}</figcaption></figure>\n", drawing, escape_html(caption));
}

/// Of the first run; of runs of different lengths, their range.
std::string trained_text(const Study& study) {
  const auto [shortest, longest] =
      std::minmax_element(study.runs.begin(), study.runs.end(),
                          [](const StudyRun& a, const StudyRun& b) { return a.trained_steps < b.trained_steps; });
  if (shortest->trained_steps == longest->trained_steps)
    return fmt::format("{} steps, {} tokens", thousands_text(longest->trained_steps),
                       thousands_text(longest->tokens_seen));
  return fmt::format("{} to {} steps, judged at step {}", thousands_text(shortest->trained_steps),
                     thousands_text(longest->trained_steps), thousands_text(study.steps.back()));
}

std::string facts(const Study& study) {
  const model::ModelConfig model = study_model(study);
  std::string out = "<dl class=\"facts\">";
  const auto fact = [&](const char* name, const std::string& value) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, escape_html(value));
  };
  const StudyRun& first = study.runs.front();
  const ProbeTokens& tokens = first.record.identity.tokens;
  fact("Runs", std::to_string(study.runs.size()));
  fact("Parameters", fmt::format("{:.3g}\u202fM", static_cast<double>(model::ParameterLayout(model).count()) / 1e6));
  fact("Model", model::describe_model(model));
  if (!study.about.empty()) fact("Text", study.about);
  if (first.trained_steps > 0) fact("Trained", trained_text(study));
  fact("Probed",
       fmt::format("{} steps{}, {} to {}", study.steps.size(), study.runs.size() > 1 ? " that all runs share" : "",
                   study.steps.front(), study.steps.back()));
  fact("Probed on", fmt::format("{} sequences of {} tokens ({})", tokens.sequences, tokens.positions, tokens.origin));
  return out + "</dl>\n";
}

std::string claims_section(const Study& study) {
  std::string out = "<ol class=\"claims\">\n";
  int number = 0;
  for (const Claim& claim : claims_of(study)) {
    out += fmt::format("<li><h3>{}. {}</h3><p class=\"verdict\">{}</p><ul>", ++number, escape_html(claim.title),
                       escape_html(claim.verdict));
    for (const std::string& sentence : claim.evidence) out += fmt::format("<li>{}</li>", escape_html(sentence));
    out += "</ul></li>\n";
  }
  return out + "</ol>\n";
}

/// e^lead as a ratio of steps. The lead's logarithm is of steps counted from one.
std::string lead_text(const Estimate& lead) {
  const auto ratio = [](double value) { return std::exp(value); };
  return estimate_text({ratio(lead.value), {ratio(lead.ci.lower), ratio(lead.ci.upper)}}, "{:.2f}");
}

std::string motif_table(const Study& study) {
  if (study.pooled.motifs.empty()) return {};
  const std::size_t last = study.last();
  std::vector<std::vector<std::string>> rows;
  for (const Motif& motif : study.pooled.motifs) {
    rows.push_back({motif.name + (motif.of_paper ? "" : " (found)"), estimate_text(motif.mass[last], "{:.3f}"),
                    estimate_text(motif.effect[last]), estimate_text(motif.control[last]),
                    estimate_text(motif.excess[last]), number_text("{:.0f}", motif.shown_from),
                    onset_text(motif.onset, study.steps), onset_text(motif.mass_onset, study.steps),
                    study.steps.size() > 1 ? lead_text(motif.lead) : "\u2013"});
  }
  return table_of({"motif", "mass", "effect", "control", "excess", "shown from", "onset by cause", "onset by mass",
                   "ratio of onsets"},
                  rows);
}

std::string run_table(const Study& study) {
  const std::size_t last = study.last();
  std::vector<std::vector<std::string>> rows;
  for (const StudyRun& run : study.runs) {
    const ProbeRow& row = run.record.rows[last];
    std::vector<std::string> cells{run.name, run.seed < 0 ? "\u2013" : std::to_string(run.seed),
                                   number_text("{:.4f}", run.valid_loss), number_text("{:.4f}", row.intact_nll),
                                   percent_text(run.findings.content[last].mean_share)};
    if (run.findings.dissociation.empty()) {
      cells.insert(cells.end(), 4, "\u2013");
    } else {
      const Dissociation& own = run.findings.dissociation[last];
      const auto name = [](int slice) {
        return slice < 0 ? std::string("\u2013") : slice_name(static_cast<std::size_t>(slice));
      };
      std::vector<std::string> idle;
      for (int slice : own.idle) idle.push_back(name(slice));
      cells.insert(cells.end(), {estimate_text(own.rank_correlation, "{:+.2f}"), name(own.largest_mass),
                                 name(own.largest_effect), list_text(idle)});
    }
    rows.push_back(cells);
  }
  return table_of({"run", "seed", "valid. loss", "probe nll", "content share", "mass\u2013effect correlation",
                   "largest mass", "largest effect", "idle mass"},
                  rows);
}

std::string cost_table(const Study& study) {
  std::vector<std::vector<std::string>> rows;
  for (const StudyRun& run : study.runs) {
    std::vector<double> computed, undecided, unshared, seconds, plain_seconds;
    for (const ProbeRow& row : run.record.rows) {
      if (!(row.cost.plain > 0)) continue;
      computed.push_back(row.cost.computed / row.cost.plain);
      undecided.push_back(row.cost.undecided / row.cost.plain);
      unshared.push_back(row.cost.unshared / row.cost.plain);
      seconds.push_back(row.cost.seconds);
      plain_seconds.push_back(row.cost.plain_seconds);
    }
    if (computed.empty()) continue;
    rows.push_back({run.name, number_text("{:.1f}", over_runs(computed).mean),
                    number_text("{:.1f}", over_runs(undecided).mean), number_text("{:.1f}", over_runs(unshared).mean),
                    number_text("{:.1f}", over_runs(seconds).mean),
                    number_text("{:.2f}", over_runs(plain_seconds).mean)});
  }
  if (rows.empty()) return {};
  return table_of({"run", "computed", "without stopping early", "without shared prefixes", "seconds a step",
                   "of which intact passes"},
                  rows) +
         "<p>Multiples of one plain evaluation of the same tokens, mean over steps.</p>\n";
}

/// Cells are shaded by the square root of the effect's size beside the largest of its column.
std::string shade(double value, double largest) {
  if (std::isnan(value) || largest <= 0) return {};
  const double strength = 0.55 * std::sqrt(std::min(1.0, std::abs(value) / largest));
  return fmt::format(" style=\"background: rgba({}, {:.2f})\"", value >= 0 ? "230, 120, 0" : "0, 114, 178", strength);
}

std::string slice_section(const Study& study) {
  const std::size_t last = study.last();
  const ProbeSettings& settings = study.runs.front().record.identity.settings;
  std::string out = "<div class=\"scroll\"><table class=\"study\"><thead><tr><th>slice</th><th>mass</th>";
  for (Ablation ablation : settings.ablations) out += fmt::format("<th>{}</th>", to_string(ablation));
  if (!settings.ablations.empty()) out += "<th>excess over control</th><th>above control</th><th>within margin</th>";
  if (study.baseline) out += "<th>wrapped: mass</th><th>wrapped: effect</th>";
  out += "</tr></thead><tbody>\n";

  const auto over = [&](std::size_t s, const auto& value) {
    std::vector<double> values;
    for (const StudyRun& run : study.runs) values.push_back(value(run.record.rows[last], s));
    return over_runs(values);
  };
  const auto effect = [](const AblationEffects* effects, std::size_t s) {
    return effects && s < effects->sets.size() ? effects->sets[s].delta_nll.value : nan;
  };
  for (std::size_t s = 0; s < num_slices; ++s) {
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td>", slice_name(s),
        number_text("{:.3f}", over(s, [](const ProbeRow& row, std::size_t i) { return row.mass[i]; }).mean));
    for (Ablation ablation : settings.ablations) {
      const auto value = [&](const ProbeRow& row, std::size_t i) { return effect(row.find(ablation), i); };
      double largest = 0;
      for (std::size_t i = 0; i < num_slices; ++i) largest = std::fmax(largest, std::abs(over(i, value).mean));
      const OverRuns e = over(s, value);
      out += fmt::format("<td{} title=\"from {} to {} over runs\">{}</td>", shade(e.mean, largest),
                         number_text("{:+.4f}", e.least), number_text("{:+.4f}", e.greatest),
                         number_text("{:+.4f}", e.mean));
    }
    if (!settings.ablations.empty()) {
      std::size_t above = 0, within = 0;
      for (const StudyRun& run : study.runs) {
        const SetEffect& first = run.record.rows[last].ablations.front().sets[s];
        above += first.control.excess.value > 0 && first.control.excess_p_adjusted < 1 - interval_level;
        within += settings.until_decided ? first.decision == Decision::absent
                                         : first.p_equivalence_adjusted < 1 - interval_level;
      }
      const OverRuns excess = over(
          s, [](const ProbeRow& row, std::size_t i) { return row.ablations.front().sets[i].control.excess.value; });
      const std::size_t n = study.runs.size();
      out += fmt::format("<td>{}</td><td>{}</td><td>{}</td>", number_text("{:+.4f}", excess.mean),
                         std::isnan(excess.mean) ? "\u2013" : fmt::format("{} of {}", above, n),
                         fmt::format("{} of {}", within, n));
    }
    if (study.baseline) {
      const ProbeRow& row = study.baseline->rows.back();
      const AblationEffects* effects = settings.ablations.empty() ? nullptr : row.find(settings.ablations.front());
      out += fmt::format("<td>{}</td><td>{}</td>", number_text("{:.3f}", row.mass[s]),
                         number_text("{:+.4f}", effect(effects, s)));
    }
    out += "</tr>\n";
  }
  return out +
         fmt::format(
             "</tbody></table></div>\n<p>Last step, mean over runs; under the names of ablations, effects in nats "
             "a token (a pointer on a number shows the range over runs). <i>Above control</i>: runs in which the "
             "excess of the first ablation is above zero at 5\u00a0% after Holm\u2019s adjustment; <i>within "
             "margin</i>: runs in which its effect is shown to lie within \u00b1{:g} nats a token.</p>\n",
             settings.margin);
}

std::string atlas_section(const Study& study) {
  const std::string drawing = atlas_figure(study);
  if (drawing.empty()) return {};
  std::vector<std::vector<std::string>> rows;
  for (const StudyRun& run : study.runs) {
    const Atlas& atlas = run.record.rows[study.last()].atlas;
    if (atlas.empty()) continue;
    rows.push_back({run.name, std::to_string(atlas.checked.size()), estimate_text(atlas.rank_correlation, "{:+.2f}"),
                    percent_text(atlas.median_relative_error, 0)});
  }
  return figure(drawing,
                "First-order estimate, from one forward and one backward pass, of what masking each single route would "
                "do at the last step (mean over runs; columns are reads, rows are sources). Orange: the loss would "
                "rise; blue: fall. Shades go with the square root. How far the estimate can be trusted is below.") +
         table_of({"run", "true ablations", "rank correlation with them", "median relative error"}, rows);
}

std::string method(const Study& study) {
  const ProbeIdentity& identity = study.runs.front().record.identity;
  std::string out = "<ul class=\"estimands\">";
  const auto item = [&](const char* name, const std::string& text) {
    out += fmt::format("<li><b>{}</b> {}</li>\n", name, escape_html(text));
  };
  item("Mass.",
       "The weight on a family of sources, mean over all reads of a slice and all tokens; a read without the family "
       "weighs 0.");
  item("Effect.",
       "Next-token negative log-likelihood of the ablated model minus that of the intact one, mean over the predicted "
       "tokens of a sequence, then over sequences.");
  for (Ablation ablation : identity.settings.ablations) item((to_string(ablation) + ".").c_str(), describe(ablation));
  if (identity.settings.controls > 0) {
    item("Control.",
         fmt::format("The same ablation of random sources in the same reads that hold the slice's mass, mean over {} "
                     "draws; the excess is the effect minus that, paired over sequences.",
                     identity.settings.controls));
  }
  std::string intervals = "95\u00a0%. Of one run: bootstrap over sequences.";
  if (identity.settings.until_decided)
    intervals += " A slice counts as within the margin where its confidence sequence decided so.";
  if (study.runs.size() > 1) {
    intervals += fmt::format(
        " Pooled: for the mean over such runs and such sequences, {} resamples; from {} runs they are wide, and the "
        "thin lines show each run by itself.",
        findings_resamples, study.runs.size());
  }
  item("Intervals.", intervals);
  if (!identity.settings.ablations.empty())
    item("Motifs and claims.",
         fmt::format("Of the ablation {}, at step {}{}.", to_string(identity.settings.ablations.front()),
                     study.steps.back(), study.runs.size() > 1 ? ", the last that all runs were probed at" : ""));
  item(
      "Shown from.",
      "The first probed step from which on, to the last, the excess of the motif is shown to be above zero (one-sided, "
      "5\u00a0%, tested from the last step back). It says by when the motif is there.");
  item("Onset.",
       "The first probed step from which on the excess (by cause), or the mass beyond that of uniform routing (by "
       "mass), stays above half of what it is at the last step. At the first probed step it may have been before. The "
       "ratio of onsets is (step by cause + 1) / (step by mass + "
       "1): below one, the cause comes first.");
  return out + "</ul>\n";
}

}  // namespace

std::string study_page(const Study& study) {
  std::vector<std::string> names;
  for (const StudyRun& run : study.runs) names.push_back(run.name);
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  page += fmt::format("<title>Study of {} \u2013 routescope</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n",
                      escape_html(list_text(names)), page_style(), own_style);
  page += fmt::format("<header><h1>When does routing become causal?</h1>\n<p class=\"lead\">{}</p>\n{}</header>\n",
                      escape_html("A study of " + list_text(names) + "."), facts(study));
  page += section("claims", "Three claims and what was found", claims_section(study));
  page += section("emergence", "When the motifs emerge",
                  figure(emergence_figure(study),
                         "Effect of each motif by the first ablation (orange; thick: pooled, with 95 % band; thin: "
                         "single runs) beside its "
                         "mass-matched control (grey). Below: onset by cause (triangle) and by mass (square), with "
                         "intervals.") +
                      motif_table(study));
  page += section("plane", "Mass against effect",
                  figure(plane_figure(study),
                         "Each slice at the last step: mean over runs, with a line to each run. Slices to the right "
                         "and low weigh much and do little."));
  page += section("slices", "All slices, all ablations", slice_section(study));
  page += section("content", "Does routing depend on content?",
                  figure(content_figure(study),
                         "Share of the variance of the weights that lies between the tokens of one route, mean over "
                         "reads with more than one source. Thin: single runs; thick: their mean."));
  page += section("atlas", "First-order atlas", atlas_section(study));
  page += section("runs", "The runs", run_table(study));
  page += section("cost", "What probing cost", cost_table(study));
  page += section("method", "How it was measured", method(study));
  page += fmt::format("<footer>routescope {}. Data: study.h5.</footer>\n</main>\n</body>\n</html>\n",
                      escape_html(data::routescope_version()));
  return page;
}

}  // namespace routescope::analysis
