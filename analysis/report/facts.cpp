#include "analysis/report/facts.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/findings/findings.h"
#include "analysis/probe/jobs.h"
#include "analysis/report/wording.h"
#include "analysis/routes/controls.h"
#include "analysis/statistics/documents.h"
#include "model/pass/parameters.h"

namespace routescope::analysis {
namespace {

void add_model(Entries& out, const model::ModelConfig& config) {
  out.emplace_back("Parameters",
                   fmt::format("{:.3g}\u202fM", static_cast<double>(model::ParameterLayout(config).count()) / 1e6));
  out.emplace_back("Layers", std::to_string(config.num_hidden_layers));
  out.emplace_back("Hidden size", std::to_string(config.hidden_size));
  out.emplace_back("Attention", fmt::format("{} heads of size {}, {} for keys and values", config.num_attention_heads,
                                            config.head_dim, config.num_key_value_heads));
  out.emplace_back("Vocabulary", thousands_text(config.vocab_size));
  out.emplace_back("Residual stream", config.routed()
                                          ? model::to_string(config.residual) + ", " + model::to_string(config.source)
                                          : model::to_string(config.residual));
  if (config.residual == model::Residual::block_attn_res)
    out.emplace_back("Blocks", fmt::format("{}, of {} layers each", config.num_blocks, config.layers_per_block()));
}

/// "400", or "100 to 400" where runs differ.
template <typename Value>
std::string range_text(const Study& study, Value value) {
  std::int64_t least = value(study.runs.front()), greatest = least;
  for (const StudyRun& run : study.runs) {
    least = std::min(least, value(run));
    greatest = std::max(greatest, value(run));
  }
  return least == greatest ? thousands_text(least) : thousands_text(least) + " to " + thousands_text(greatest);
}

std::string loss_text(const Study& study, double StudyRun::*loss) {
  std::vector<double> values;
  for (const StudyRun& run : study.runs) values.push_back(run.*loss);
  const OverRuns over = over_runs(values);
  if (over.least == over.greatest) return number_text("{:.4f}", over.mean) + " nats/token";
  return fmt::format("{} to {} nats/token", number_text("{:.4f}", over.least), number_text("{:.4f}", over.greatest));
}

void add_training(Entries& out, const Study& study) {
  const StudyRun& first = study.runs.front();
  if (first.trained_steps > 0) {
    out.emplace_back("Steps", range_text(study, [](const StudyRun& run) { return run.trained_steps; }));
    out.emplace_back("Tokens seen", range_text(study, [](const StudyRun& run) { return run.tokens_seen; }));
    out.emplace_back("Training loss", loss_text(study, &StudyRun::train_loss));
  }
  if (!std::isnan(first.valid_loss)) out.emplace_back("Validation loss", loss_text(study, &StudyRun::valid_loss));
}

void add_probes(Entries& out, const Study& study) {
  const AnalysisRecord& record = study.runs.front().record;
  out.emplace_back("Probed steps",
                   fmt::format("{}, {} to {}{}", record.rows.size(), thousands_text(record.rows.front().step),
                               thousands_text(record.rows.back().step), study.pooled ? ", in every run" : ""));
  const ProbeTokens& tokens = record.identity.tokens;
  out.emplace_back(
      "Probed on",
      fmt::format("{} sequences of {} tokens ({}), {}", tokens.sequences, tokens.positions, tokens.origin,
                  tokens.documents.empty() ? "documents not known"
                                           : fmt::format("from {} documents", count_documents(tokens.documents))));
}

void add_effects(Entries& out, const ProbeIdentity& identity) {
  out.emplace_back("Mass of a slice.",
                   "The weight on a family of sources (embedding, history, current), averaged over all reads of one "
                   "sublayer kind and depth and over all tokens. A read without such a source weighs 0. The masses of "
                   "the three families sum to one.");
  out.emplace_back(
      "Free mass of a slice.",
      "The same average over the reads that the ablation can change. In the others the weight is 0 (no "
      "such source) or 1 (no other source), whatever the model does. Wherever mass and effect are compared, "
      "it is free mass; the heaviest slice is the one with the largest.");
  const model::ModelConfig config = model::ModelConfig::parse(identity.model_config, "model_config");
  out.emplace_back(
      "Families.",
      std::string("Embedding: that of the token. History: every completed block, the newest one included. Current: the "
                  "sum of what was written since; at the first attention of a block that is the whole block before. ") +
          (config.source == model::AttnResSource::cumulative
               ? "In this model sources are snapshots of one running sum that starts with the embedding: history and "
                 "current hold the embedding too, and what is found of them may be due to it."
               : "Apart from read 0.attn, where the embedding is the current source, no source holds another one."));
  out.emplace_back(
      "Effect of a slice.",
      fmt::format(
          "\u0394 nll: next-token negative log-likelihood of the ablated model minus that of the intact one, in "
          "nats per token; mean over the {} predicted tokens of each of {} sequences ({}).",
          identity.tokens.positions - 1, identity.tokens.sequences, identity.tokens.origin));
  for (Ablation ablation : identity.settings.ablations)
    out.emplace_back("Ablation " + to_string(ablation) + ".", describe(ablation));
  if (identity.settings.controls > 0) {
    out.emplace_back(
        "Control.",
        fmt::format(
            "The same ablation of random sources that hold as much in the same reads: once as much "
            "weight, once as much contribution. All of them where they are {} or fewer, else {} of "
            "each kind for every document, drawn for it alone, so that intervals over documents "
            "hold the spread of the draws. The excess is the effect minus its control, paired over "
            "sequences. Draws are the same at every step and in every run. Reads without another choice are as in "
            "the slice. The overlap is the share of what controls hold that is the slice\u2019s own: near one there is "
            "hardly anything to compare with, and an excess can hardly be shown.",
            most_enumerated_controls, DocumentDraws(identity.settings, identity.tokens).per_document));
  }
  if (!identity.sets.empty()) {
    out.emplace_back("Contribution.",
                     "c = \u03b1 \u27e8v, h\u27e9 / |h|\u00b2 of a source v in a read that hands on h: its part in "
                     "h. It sums to one over the sources of a read, and unlike the weight it counts how long v is.");
  }
}

void add_tests(Entries& out, const Study& study) {
  const ProbeSettings& settings = study.runs.front().record.identity.settings;
  const bool sequential = settings.until_decided;
  std::string intervals =
      sequential
          ? "95\u00a0% confidence sequences over documents, paired, valid at whatever moment a slice was decided; "
            "anytime-valid p values, adjusted by Holm\u2019s method over the slices of a step."
          : "95\u00a0% BCa bootstrap over documents, paired. Of effects: two-sided sign-flip tests over documents; of "
            "the "
            "excess over controls, of margins and of the comparisons under the claims: one-sided t tests, corrected "
            "for "
            "skewness (Hall 1992); of the share of documents without an effect: binomial; of tau: permutations within "
            "groups, with bounds from all pairs at once. Adjusted by Holm\u2019s method over the slices of a step, or "
            "over the comparisons of a claim. Each step by itself.";
  if (study.pooled) {
    intervals += fmt::format(
        " Of the pooled motifs: for the mean over such runs and such documents, with Student\u2019s t for either "
        "source of "
        "error; {} runs make them wide, so look at the single runs beside them. Tau and its bounds are of these runs: "
        "only documents count as drawn.",
        study.runs.size());
  }
  out.emplace_back("Intervals and tests.", intervals);
  out.emplace_back(
      "No effect.",
      fmt::format(
          "Shown, not assumed: {} within \u00b1{} nats per token ({}), which is {:g}\u00a0% of what the model has "
          "learned by the last step.",
          sequential ? "the confidence sequence, at the level it decides at, lies"
                     : "two one-sided tests put the mean effect",
          number_text("{:.4f}", study.findings().learned.back().margin),
          sequential ? "5\u00a0% over the slices" : "Holm, 5\u00a0%", 100 * settings.margin));
}

void add_onsets(Entries& out) {
  out.emplace_back(
      "Shown from.",
      "The first probed step from which on, to the last, every test of a motif succeeds (one-sided, 5\u00a0% "
      "over the three, from the last step back). It says by when the motif is there.");
  out.emplace_back(
      "Onset.",
      "A step function from 0 to the last value is fitted to the curve; it rises at one of the probed steps, and the "
      "onset is where the straight line from the step before crosses half of the last value. What happened between two "
      "probed steps is not known: the interval reaches at least from one to the other. By cause it is that of the "
      "excess, by mass that of the mass above uniform routing. At the first probed step it may have come before. "
      "Intervals: bootstrap over documents; with several runs, over runs and documents. The ratio of onsets is (step "
      "by "
      "cause + 1) / (step by mass + 1): below one, the cause comes first.");
}

}  // namespace

Entries facts_of(const Study& study) {
  Entries out;
  if (study.runs.size() > 1) out.emplace_back("Runs", std::to_string(study.runs.size()));
  if (study.config) add_model(out, *study.config);
  if (!study.about.empty()) out.emplace_back("Text", study.about);
  add_training(out, study);
  if (study.runs.front().checkpoints > 0)
    out.emplace_back("Saved steps",
                     range_text(study, [](const StudyRun& run) { return static_cast<std::int64_t>(run.checkpoints); }));
  if (study.probed()) add_probes(out, study);
  return out;
}

Entries methods_of(const Study& study) {
  Entries out;
  const StudyRun& first = study.runs.front();
  const data::RoutingRecordInfo& info = first.routing.info;
  if (info.sequences > 0 && !info.reads.empty()) {
    out.emplace_back("Weight.",
                     fmt::format("The softmax weight \u03b1 of one read (the input of a sublayer) on one source, "
                                 "averaged over {} held-out sequences of {} tokens; a share.",
                                 info.sequences, info.positions));
  }
  if (!study.probed()) return out;
  add_effects(out, first.record.identity);
  add_tests(out, study);
  if (const std::string& sha256 = first.record.identity.preregistration_sha256; !sha256.empty())
    out.emplace_back(
        "Preregistration.",
        "SHA-256 " + sha256 +
            " of the file that said before the first probe what is tested and how. The "
            "program keeps the checksum, and does not read the file. What this page says beyond that file is "
            "exploratory.");
  if (!study.findings().motifs.empty()) add_onsets(out);
  const std::vector<ProbeRow>& rows = first.record.rows;
  if (std::any_of(rows.begin(), rows.end(), [](const ProbeRow& row) { return !row.atlas.empty(); })) {
    out.emplace_back(
        "Estimated effect of a route.",
        "What the read\u2019s sublayer would make without the route is computed exactly. Its difference is multiplied "
        "by "
        "the gradient of the loss there; half the square of the same with labels drawn from the model is added, which "
        "stands for the curvature. It ranks routes, and misjudges large effects. First order, in comparison: minus the "
        "gradient "
        "of the loss with respect to a gate on the route\u2019s exp(logit).");
  }
  return out;
}

}  // namespace routescope::analysis
