#include "analysis/report/report.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "analysis/commands/tables.h"
#include "analysis/report/page.h"
#include "analysis/report/report_parts.h"
#include "analysis/report/web.h"
#include "analysis/routes/slices.h"
#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/files.h"

namespace routescope::analysis {
namespace {

using namespace report;
using nlohmann::json;

// What keeps a page of the largest models under 5 MB: so many weights (each with its spread, about 9 bytes) over all
// snapshots, so many points of the training loss (about 25 bytes), numbers of the atlas (8) and weights of single
// tokens (4/3).
constexpr std::size_t most_weights = 200'000;
constexpr std::size_t most_losses = 1200;
constexpr std::size_t most_atlas = 60'000;
constexpr std::size_t most_token_weights = 600'000;

/// A weight in 1/10000, -1 where there is none.
json weights(const std::vector<float>& values) {
  json out = json::array();
  for (float value : values)
    out.push_back(std::isnan(value) ? -1 : static_cast<int>(std::lround(1e4 * static_cast<double>(value))));
  return out;
}

json snapshot_data(const data::RoutingRecordView& record) {
  json out{{"step", json::array()}, {"alpha", json::array()}, {"alpha_std", json::array()}, {"entropy", json::array()}};
  const std::size_t cells = record.info.reads.size() * record.info.sources.size();
  if (cells == 0) return out;
  for (std::size_t i : report::thinned(record.snapshots.size(), std::max<std::size_t>(2, most_weights / cells))) {
    const data::RoutingSnapshot& snapshot = record.snapshots[i];
    out["step"].push_back(snapshot.step);
    out["alpha"].push_back(weights(snapshot.alpha_mean));
    out["alpha_std"].push_back(weights(snapshot.alpha_std));
    out["entropy"].push_back(report::numbers({snapshot.alpha_entropy.begin(), snapshot.alpha_entropy.end()}));
  }
  return out;
}

/// Losses by step, in bins of a constant ratio of steps where there are more than a drawing can show.
json train_data(const std::vector<data::TrainRow>& rows) {
  json out{{"rows", rows.size()}, {"step", json::array()}, {"tokens", json::array()}, {"loss", json::array()}};
  if (rows.empty()) return out;
  const double span =
      static_cast<double>(rows.back().step) / static_cast<double>(std::max<std::int64_t>(1, rows.front().step));
  const double ratio = rows.size() > most_losses ? std::pow(span, 1.0 / static_cast<double>(most_losses)) : 1.0;
  for (std::size_t begin = 0; begin < rows.size();) {
    double sum = 0;
    std::size_t end = begin;
    const double limit = static_cast<double>(rows[begin].step) * ratio;
    do {
      sum += rows[end++].loss;
    } while (end < rows.size() && static_cast<double>(rows[end].step) < limit);
    out["step"].push_back(rows[end - 1].step);
    out["tokens"].push_back(rows[end - 1].tokens_seen);
    out["loss"].push_back(report::number(sum / static_cast<double>(end - begin)));
    begin = end;
  }
  return out;
}

json valid_data(const std::vector<data::ValidRow>& rows, double tokens_per_step) {
  json out{{"step", json::array()}, {"tokens", json::array()}, {"loss", json::array()}};
  for (const data::ValidRow& row : rows) {
    out["step"].push_back(row.step);
    out["tokens"].push_back(std::llround(static_cast<double>(row.step) * tokens_per_step));
    out["loss"].push_back(report::number(row.loss));
  }
  return out;
}

json facts(const ReportInput& input) {
  json out = json::array();
  const auto fact = [&](const char* name, const std::string& value) { out.push_back({name, value}); };
  if (input.config) {
    const model::ModelConfig& config = *input.config;
    fact("Parameters", fmt::format("{:.3g}\u202fM", static_cast<double>(model::ParameterLayout(config).count()) / 1e6));
    fact("Layers", std::to_string(config.num_hidden_layers));
    fact("Hidden size", std::to_string(config.hidden_size));
    fact("Attention", fmt::format("{} heads, {} key/value, of {}", config.num_attention_heads,
                                  config.num_key_value_heads, config.head_dim));
    fact("Vocabulary", thousands_text(config.vocab_size));
    fact("Residual stream", config.routed() ? model::to_string(config.residual) + ", " + model::to_string(config.source)
                                            : model::to_string(config.residual));
    if (config.residual == model::Residual::block_attn_res)
      fact("Blocks", fmt::format("{} of {} layers", config.num_blocks, config.layers_per_block()));
  }
  const data::RoutingRecordView& record = input.record;
  if (!record.train.empty()) {
    fact("Steps", thousands_text(record.train.back().step));
    fact("Tokens seen", thousands_text(record.train.back().tokens_seen));
    fact("Training loss", fmt::format("{:.4f} nats/token", record.train.back().loss));
  }
  if (!record.valid.empty()) fact("Validation loss", fmt::format("{:.4f} nats/token", record.valid.back().loss));
  fact("Saved, probed steps",
       fmt::format("{}, {}", input.checkpoints, input.subjects.empty() ? 0 : input.subjects[0].analysis.rows.size()));
  return out;
}

json estimands(const ReportInput& input) {
  json out = json::array();
  const data::RoutingRecordInfo& info = input.record.info;
  if (info.reads.empty()) return out;
  const auto say = [&](const char* what, const std::string& text) { out.push_back({what, text}); };
  say("Weight.",
      fmt::format("The softmax weight \u03b1 of one read (the input of a sublayer) on one source, averaged over "
                  "{} held-out sequences of {} tokens; a share.",
                  info.sequences, info.positions));
  if (input.subjects.empty()) return out;
  const ProbeIdentity& identity = input.subjects.front().analysis.identity;
  const ProbeRow& row = input.subjects.front().analysis.rows.back();
  const bool sequential = identity.settings.until_decided;
  say("Mass of a slice.",
      "The weight on a family of sources (embedding, history, current), averaged over all reads of one sublayer kind "
      "and depth and over all tokens; a read without such a source weighs 0. Masses of the three families sum to "
      "one.");
  say("Effect of a slice.",
      fmt::format(
          "\u0394 nll: next-token negative log-likelihood of the ablated model minus that of the intact one, in "
          "nats per token, mean over the {} predicted tokens of each of {} sequences ({}).",
          identity.tokens.positions - 1, identity.tokens.sequences, identity.tokens.origin));
  for (const AblationEffects& effects : row.ablations)
    say(("Ablation " + to_string(effects.ablation) + ".").c_str(), describe(effects.ablation));
  if (identity.settings.controls > 0) {
    say("Control.",
        fmt::format("The same ablation of random sources that hold the slice\u2019s mass in the same reads, "
                    "mean over {} draws. The excess is the effect minus its control, paired.",
                    identity.settings.controls));
  }
  say("Intervals and tests.",
      sequential
          ? fmt::format("95\u00a0% confidence sequences over sequences, paired, valid at whatever moment a slice was "
                        "decided; anytime-valid p values adjusted by Holm\u2019s method over the slices of a step.")
          : "95\u00a0% BCa bootstrap over sequences, paired; two-sided sign-flip tests over sequences, adjusted by "
            "Holm\u2019s method over the slices of a step. Pointwise in steps.");
  say("No effect.", fmt::format("Shown, not assumed: {} within \u00b1{} nats per token ({}).",
                                sequential ? "the confidence sequence, at the level it decides at, lies"
                                           : "two one-sided tests put the effect",
                                identity.settings.margin, sequential ? "5\u00a0% over the slices" : "Holm, 5\u00a0%"));
  if (!input.subjects.front().findings.motifs.empty()) {
    say("Onset.",
        "By cause: the first probed step from which on the excess stays above half of what it is at the last step; by "
        "mass: the same of the mass above what uniform routing would give. At the first probed step it may have been "
        "before. None where the last step is not shown to be above zero. Intervals: bootstrap over sequences, with "
        "several runs over runs and sequences.");
  }
  if (!row.atlas.empty()) {
    say("First-order effect.",
        "Minus the gradient of the loss with respect to a gate on one route\u2019s exp(logit): what masking that one "
        "route would do if the loss were linear in it.");
  }
  return out;
}

/// A set's name, and where it belongs if it is a slice.
json set_data(const std::string& name) {
  for (int slice = 0; slice < num_slices; ++slice) {
    if (slice_name(static_cast<std::size_t>(slice)) != name) continue;
    return {{"name", name},
            {"title", report::set_title(name)},
            {"family", slice / 6},
            {"sublayer", slice / 3 % 2},
            {"depth", slice % 3}};
  }
  return {{"name", name}, {"title", name}, {"family", nullptr}, {"sublayer", nullptr}, {"depth", nullptr}};
}

void replace(std::string& text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  if (at == std::string::npos) throw std::logic_error("report template lacks " + std::string(what));
  text.replace(at, what.size(), by);
}

/// Within a script element only "<" could end it; JSON may spell it otherwise.
std::string escape_json(const json& data) {
  std::string out;
  for (char c : data.dump(-1, ' ', false, json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

json report_data(const ReportInput& input) {
  const data::RoutingRecordView& record = input.record;
  const double tokens_per_step = record.train.empty() ? 0.0
                                                      : static_cast<double>(record.train.back().tokens_seen) /
                                                            static_cast<double>(record.train.back().step);
  const std::size_t reads = record.info.reads.size(), columns = record.info.sources.size();

  json sets = json::array(), subjects = json::array(), motifs = json::array(), motif_step = json::array();
  json atlas = json::array();
  std::string pooled, motif_ablation;
  if (!input.subjects.empty()) {
    const ReportSubject& first = input.subjects.front();
    const std::vector<Ablation>& ablations = first.analysis.identity.settings.ablations;
    if (!ablations.empty()) motif_ablation = to_string(ablations.front());
    const std::vector<std::string>& names = first.analysis.identity.sets;
    for (const std::string& name : names) sets.push_back(set_data(name));
    for (const ReportSubject& subject : input.subjects) subjects.push_back(report::subject_data(subject, names));
    const Findings& findings = input.pooled ? *input.pooled : first.findings;
    motifs = report::motif_data(findings);
    motif_step = findings.step;
    atlas = report::atlas_data(first.analysis.rows, most_atlas);
    if (input.pooled) pooled = fmt::format("Pooled over {} runs.", input.pooled->runs);
    if (!input.not_pooled.empty()) pooled = "The runs are not pooled: " + input.not_pooled;
  }
  return {
      {"run", input.name},
      {"lead", "What its routing weighs, what it does, and since when."},
      {"facts", facts(input)},
      {"claims", report::claims(input)},
      {"pooled", pooled},
      {"runs", input.pooled ? input.pooled->runs : 1},
      {"estimands", estimands(input)},
      {"tokens_per_step", tokens_per_step},
      {"reads",
       {{"name", record.info.reads},
        {"layer", record.info.layer},
        {"sublayer", record.info.sublayer},
        {"depth", record.info.depth}}},
      {"sources", record.info.sources},
      {"snapshots", snapshot_data(record)},
      {"train", train_data(record.train)},
      {"valid", valid_data(record.valid, tokens_per_step)},
      {"sets", sets},
      {"subjects", subjects},
      {"motifs", motifs},
      {"motif_step", motif_step},
      {"motif_ablation", motif_ablation},
      {"atlas", atlas},
      {"text", input.text ? report::text_data(*input.text, reads, columns, most_token_weights) : json()},
      {"not_probed", record.info.reads.empty()
                         ? "This model's residual stream is not routed: there is nothing to probe."
                         : "No step of this run was probed yet (routescope-analyze track --run DIR)."},
      {"footer", fmt::format("routescope {}, {:%Y-%m-%d %H:%M} UTC. Data: routing.h5{}.", data::routescope_version(),
                             fmt::gmtime(std::time(nullptr)), input.subjects.empty() ? "" : " and analysis.h5")},
  };
}

std::string report_page(const json& data) {
  std::string page(report_template);
  // The scripts first: what the run says must not be searched for their places.
  replace(page, "@SCRIPTS@", report_scripts);
  replace(page, "@DATA@", escape_json(data));
  replace(page, "@TITLE@", escape_html(data.at("run").get<std::string>()) + " \u2013 routescope");
  return page;
}

void write_report(const ReportRequest& request, const std::filesystem::path& file) {
  data::write_text_atomically(file, report_page(report_data(load_report(request))));
}

void write_report(const std::filesystem::path& run_dir, const std::filesystem::path& file) {
  ReportRequest request;
  request.runs = {run_dir};
  write_report(request, file);
}

}  // namespace routescope::analysis
