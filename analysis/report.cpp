#include "analysis/report.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "analysis/inspect.h"
#include "analysis/record.h"
#include "analysis/report_template.h"
#include "analysis/tables.h"
#include "data/command_line.h"
#include "data/error.h"
#include "data/files.h"
#include "data/manifest.h"
#include "data/routing_record.h"

namespace routescope {
namespace {

using nlohmann::json;

// What keeps a page of the largest models under 5 MB: so many weights (each with its spread, about 9 bytes) over all
// snapshots, and so many points of the training loss.
constexpr std::size_t most_weights = 350'000;
constexpr std::size_t most_losses = 1200;

/// Four significant digits; JSON has no NaN, so null is what is not there.
json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0) return 0;
  const double scale = std::pow(10.0, 4 - std::ceil(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

json numbers(const std::vector<double>& values) {
  json out = json::array();
  for (double value : values) out.push_back(number(value));
  return out;
}

/// A weight in 1/10000, -1 where there is none.
json weights(const std::vector<float>& values) {
  json out = json::array();
  for (float value : values)
    out.push_back(std::isnan(value) ? -1 : static_cast<int>(std::lround(1e4 * static_cast<double>(value))));
  return out;
}

/// At most `count` of n indices, evenly, the first and the last among them.
std::vector<std::size_t> thinned(std::size_t n, std::size_t count) {
  std::vector<std::size_t> out;
  if (n <= count) {
    for (std::size_t i = 0; i < n; ++i) out.push_back(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) out.push_back(count == 1 ? n - 1 : i * (n - 1) / (count - 1));
  }
  return out;
}

json snapshot_data(const RoutingRecordView& record) {
  json out{{"step", json::array()}, {"alpha", json::array()}, {"alpha_std", json::array()}, {"entropy", json::array()}};
  const std::size_t cells = record.info.reads.size() * record.info.sources.size();
  if (cells == 0) return out;
  for (std::size_t i : thinned(record.snapshots.size(), std::max<std::size_t>(2, most_weights / cells))) {
    const RoutingSnapshot& snapshot = record.snapshots[i];
    out["step"].push_back(snapshot.step);
    out["alpha"].push_back(weights(snapshot.alpha_mean));
    out["alpha_std"].push_back(weights(snapshot.alpha_std));
    out["entropy"].push_back(numbers({snapshot.alpha_entropy.begin(), snapshot.alpha_entropy.end()}));
  }
  return out;
}

/// Losses by step, in bins of a constant ratio of steps where there are more than a drawing can show.
json train_data(const std::vector<TrainRow>& rows) {
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
    out["loss"].push_back(number(sum / static_cast<double>(end - begin)));
    begin = end;
  }
  return out;
}

json valid_data(const std::vector<ValidRow>& rows, double tokens_per_step) {
  json out{{"step", json::array()}, {"tokens", json::array()}, {"loss", json::array()}};
  for (const ValidRow& row : rows) {
    out["step"].push_back(row.step);
    out["tokens"].push_back(std::llround(static_cast<double>(row.step) * tokens_per_step));
    out["loss"].push_back(number(row.loss));
  }
  return out;
}

json probe_data(const std::vector<ProbeRow>& rows) {
  json out;
  for (const char* field : {"step", "nll", "mass", "delta", "lower", "upper", "p", "kl", "top1", "coverage"})
    out[field] = json::array();
  for (const ProbeRow& row : rows) {
    out["step"].push_back(row.step);
    out["nll"].push_back(number(row.intact_nll));
    out["mass"].push_back(numbers(row.mass));
    out["delta"].push_back(numbers(row.effects(Ablation::mask).delta_nll));
    out["lower"].push_back(numbers(row.effects(Ablation::mask).ci_lower));
    out["upper"].push_back(numbers(row.effects(Ablation::mask).ci_upper));
    out["p"].push_back(numbers(row.effects(Ablation::mask).p_adjusted));
    out["kl"].push_back(numbers(row.effects(Ablation::mask).kl));
    out["top1"].push_back(numbers(row.effects(Ablation::mask).top1_agreement));
    out["coverage"].push_back(numbers(row.effects(Ablation::mask).coverage));
  }
  return out;
}

std::string thousands(std::int64_t value) {
  std::string text = std::to_string(value);
  for (std::ptrdiff_t at = std::ssize(text) - 3; at > 0; at -= 3) text.insert(static_cast<std::size_t>(at), "\u202f");
  return text;
}

json facts(const RoutingRecordView& record, const std::vector<CheckpointEntry>& checkpoints,
           const AnalysisRecord& analysis) {
  json out = json::array();
  const auto fact = [&](const char* name, const std::string& value) { out.push_back({name, value}); };
  if (!checkpoints.empty()) {
    const ModelConfig config = ModelConfig::load(checkpoints.back().dir / "config.json");
    fact("Parameters", fmt::format("{:.3g}\u202fM", static_cast<double>(ParameterLayout(config).count()) / 1e6));
    fact("Layers", std::to_string(config.num_hidden_layers));
    fact("Hidden size", std::to_string(config.hidden_size));
    fact("Attention", fmt::format("{} heads, {} key/value, of {}", config.num_attention_heads,
                                  config.num_key_value_heads, config.head_dim));
    fact("Vocabulary", thousands(config.vocab_size));
    fact("Residual stream",
         config.routed() ? to_string(config.residual) + ", " + to_string(config.source) : to_string(config.residual));
    if (config.residual == Residual::block_attn_res)
      fact("Blocks", fmt::format("{} of {} layers", config.num_blocks, config.layers_per_block()));
  }
  if (!record.train.empty()) {
    fact("Steps", thousands(record.train.back().step));
    fact("Tokens seen", thousands(record.train.back().tokens_seen));
    fact("Training loss", fmt::format("{:.4f} nats/token", record.train.back().loss));
  }
  if (!record.valid.empty()) fact("Validation loss", fmt::format("{:.4f} nats/token", record.valid.back().loss));
  fact("Saved, probed steps", fmt::format("{}, {}", checkpoints.size(), analysis.rows.size()));
  return out;
}

json estimands(const RoutingRecordView& record, const AnalysisRecord& analysis) {
  json out = json::array();
  if (record.info.reads.empty()) return out;
  out.push_back({"Weight.", fmt::format("The softmax weight \u03b1 of one read (the input of a sublayer) on one "
                                        "source, averaged over {} held-out sequences of {} tokens; a share.",
                                        record.info.sequences, record.info.positions)});
  if (analysis.rows.empty()) return out;
  const ProbeTokens& tokens = analysis.identity.tokens;
  out.push_back({"Mass of a slice.",
                 "The weight on a family of sources (embedding, history, current), averaged over all reads of one "
                 "sublayer kind and depth and over all tokens; a read without such a source weighs 0. Masses of the "
                 "three families sum to one."});
  out.push_back(
      {"Effect of a slice.",
       fmt::format(
           "\u0394 nll: next-token negative log-likelihood with the slice's sources masked (logit \u2212\u221e, "
           "softmax over the rest; a read that would keep no source is left alone) minus that of the intact model, in "
           "nats per token, mean over the {} predicted tokens of each of {} sequences ({}).",
           tokens.positions - 1, tokens.sequences, tokens.origin)});
  out.push_back(
      {"Intervals and tests.",
       "95\u00a0% BCa bootstrap over sequences, paired; two-sided sign-flip tests over sequences, adjusted by "
       "Holm's method over the slices of a step."});
  return out;
}

void replace(std::string& text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  if (at == std::string::npos) throw std::logic_error("report template lacks " + std::string(what));
  text.replace(at, what.size(), by);
}

std::string escape_html(const std::string& text) {
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

json report_data(const std::filesystem::path& run_dir) {
  const auto record_file = run_dir / "routing.h5", analysis_file = run_dir / "analysis.h5";
  if (!std::filesystem::exists(record_file))
    throw Error("{}: no such file, expected a run directory", record_file.string());
  const RoutingRecordView record = RoutingRecordView::load(record_file);
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run_dir);
  const AnalysisRecord analysis =
      std::filesystem::exists(analysis_file) ? AnalysisRecord::load(analysis_file) : AnalysisRecord{};

  const std::filesystem::path absolute = std::filesystem::absolute(run_dir).lexically_normal();
  const std::string name = (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
  const double tokens_per_step = record.train.empty() ? 0.0
                                                      : static_cast<double>(record.train.back().tokens_seen) /
                                                            static_cast<double>(record.train.back().step);

  json slices = json::array();
  for (int s = 0; s < num_slices; ++s) slices.push_back({{"family", s / 6}, {"sublayer", s / 3 % 2}, {"depth", s % 3}});
  const ProbeTokens& tokens = analysis.identity.tokens;
  return {
      {"run", name},
      {"lead", "What its routing weighs, what it does, and since when."},
      {"facts", facts(record, checkpoints, analysis)},
      {"estimands", estimands(record, analysis)},
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
      {"probe", {{"sequences", tokens.sequences}, {"positions", tokens.positions}}},
      {"probes", probe_data(analysis.rows)},
      {"slices", slices},
      {"not_probed", record.info.reads.empty()
                         ? "This model's residual stream is not routed: there is nothing to probe."
                         : "No step of this run was probed yet (routescope-analyze track --run DIR)."},
      {"footer", fmt::format("routescope {}, {:%Y-%m-%d %H:%M} UTC. Data: routing.h5{}.", routescope_version(),
                             fmt::gmtime(std::time(nullptr)), analysis.rows.empty() ? "" : " and analysis.h5")},
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

void write_report(const std::filesystem::path& run_dir, const std::filesystem::path& file) {
  write_text_atomically(file, report_page(report_data(run_dir)));
}

}  // namespace routescope
