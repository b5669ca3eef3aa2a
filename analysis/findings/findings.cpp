#include "analysis/findings/findings.h"

#include <algorithm>
#include <cmath>

#include "analysis/findings/resampled.h"
#include "analysis/routes/slices.h"
#include "data/base/error.h"
#include "model/files/config.h"

namespace routescope::analysis {
namespace {

// Weights are f32 and at most 1, sums of a few roundings: what varies by less than four units in the last place of 1
// has not varied.
constexpr double rounding_variance = 0x1p-22 * 0x1p-22;

Content content_of(const ProbeRow& row, const model::ReadPlan& plan) {
  Content content;
  double sum = 0, counted = 0;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    const double sources = static_cast<double>(read.columns.size());
    double within = 0, between = 0;
    for (int column : read.columns) {
      const auto at = static_cast<std::size_t>(r * plan.num_columns() + column);
      const double deviation = row.alpha_mean[at] - 1 / sources;  // the weights of a token sum to one
      within += row.alpha_variance[at] / sources;
      between += deviation * deviation / sources;
    }
    const double total = within + between;
    content.share.push_back(read.columns.size() < 2 ? nan : within <= rounding_variance ? 0 : within / total);
    if (read.columns.size() < 2) continue;
    sum += content.share.back();
    counted += 1;
  }
  content.mean_share = sum / counted;
  return content;
}

void check_sizes(const ProbeRow& row, std::size_t sets, std::size_t sequences, const model::ReadPlan& plan) {
  const auto check = [&](const char* name, std::size_t found, std::size_t expected) {
    if (found != expected)
      throw data::Error("row of step {}: {} has {} values, expected {}", row.step, name, found, expected);
  };
  const auto routes = static_cast<std::size_t>(plan.num_routed() * plan.num_columns());
  check("alpha_mean", row.alpha_mean.size(), routes);
  check("alpha_variance", row.alpha_variance.size(), routes);
  check("intact_nll_sequence", row.intact_nll_sequence.size(), sequences);
  if (row.ablations.empty()) return;
  check("mass", row.mass.size(), sets);
  check("mass_sequence", row.mass_sequence.size(), sets * sequences);
  check("the first ablation", row.ablations.front().sets.size(), sets);
  for (const SetEffect& set : row.ablations.front().sets) {
    check("delta_nll_sequence", set.delta_nll_sequence.size(), sequences);
    for (const ControlEffect* control : {&set.control, &set.contribution_control})
      if (!control->delta_nll_sequence.empty())
        check("the control's delta_nll_sequence", control->delta_nll_sequence.size(), sequences);
  }
}

bool alike(const ProbeTokens& a, const ProbeTokens& b) {
  return a.sequences == b.sequences && a.positions == b.positions && a.ids == b.ids && a.documents == b.documents;
}

void check_alike(std::span<const AnalysisRecord* const> records) {
  const ProbeIdentity& first = records.front()->identity;
  for (std::size_t i = 1; i < records.size(); ++i) {
    const ProbeIdentity& other = records[i]->identity;
    const auto expect = [&](bool same, const char* what) {
      if (!same) throw data::Error("run {} of {}: its {} of run 1", i + 1, records.size(), what);
    };
    expect(other.version == first.version, "record's version differs from that");
    expect(other.model_config == first.model_config, "model configuration differs from that");
    expect(alike(other.tokens, first.tokens), "probe tokens differ from those");
    expect(other.sets == first.sets, "sets differ from those");
    const std::string difference = first_difference(other.settings, first.settings);
    if (!difference.empty())
      throw data::Error("run {} of {}: its probe settings differ from those of run 1: {}", i + 1, records.size(),
                        difference);
    expect(alike(other.patch, first.patch), "aligned tokens differ from those");
    expect(other.classes == first.classes, "token classes differ from those");
    expect(other.preregistration_sha256 == first.preregistration_sha256, "preregistration differs from that");
  }
}

std::vector<std::int64_t> common_steps(std::span<const AnalysisRecord* const> records) {
  std::vector<std::int64_t> steps;
  for (const ProbeRow& row : records.front()->rows) {
    if (std::all_of(records.begin(), records.end(), [&](const auto* one) { return one->find(row.step) != nullptr; }))
      steps.push_back(row.step);
  }
  if (steps.empty() && records.size() > 1)
    throw data::Error("the {} runs have no probed step in common", records.size());
  return steps;
}

Findings findings_of(std::span<const AnalysisRecord* const> records) {
  check_alike(records);
  const ProbeIdentity& identity = records.front()->identity;
  Findings out;
  out.runs = static_cast<int>(records.size());
  out.step = common_steps(records);
  if (out.step.empty()) return out;
  const model::ModelConfig config = model::ModelConfig::parse(identity.model_config, "model_config");
  const model::ReadPlan plan(config);
  const auto sequences = static_cast<std::size_t>(identity.tokens.sequences);

  std::vector<Rows> runs;
  bool ablated = true;
  for (const AnalysisRecord* record : records) {
    Rows& rows = runs.emplace_back();
    for (std::int64_t step : out.step) {
      rows.push_back(record->find(step));
      check_sizes(*rows.back(), identity.sets.size(), sequences, plan);
      ablated = ablated && !rows.back()->ablations.empty();
    }
  }
  for (std::size_t row = 0; row < out.step.size(); ++row) {
    std::vector<Content> contents;
    for (const Rows& run : runs) contents.push_back(content_of(*run[row], plan));
    Content& pooled = out.content.emplace_back(contents.front());
    const auto over_runs = [&](auto&& number) {
      double sum = 0;
      for (const Content& content : contents) sum += number(content);
      return sum / static_cast<double>(contents.size());
    };
    pooled.mean_share = over_runs([](const Content& content) { return content.mean_share; });
    for (std::size_t read = 0; read < pooled.share.size(); ++read)
      pooled.share[read] = over_runs([&](const Content& content) { return content.share[read]; });
  }

  for (std::size_t row = 0; row < out.step.size(); ++row) {
    out.learned.push_back(learned_at(runs, out.step, row, sequences, identity.tokens.documents));
    // Of an older file no verdict is given.
    if (identity.version < analysis_version_major) out.learned.back() = Learned();
  }

  for (std::size_t row = 0; row < out.step.size() && !identity.settings.until_decided; ++row)
    out.interactions.push_back(interactions_at(runs, row, sequences, identity.tokens.documents));

  std::vector<std::string> slice_names;
  for (const Slice& slice : make_slices(plan)) slice_names.push_back(slice.name());
  if (!ablated || identity.sets != slice_names) return out;
  const std::vector<std::int64_t>& documents = identity.tokens.documents;
  const std::uint64_t seed = identity.settings.seed;
  const Curves curves = make_curves(runs, identity.sets.size(), sequences, documents, seed, findings_resamples,
                                    identity.settings.until_decided);
  const Basis basis{curves, out.step, runs, plan, sequences, documents, out.learned};
  for (std::size_t row = 0; row < out.step.size(); ++row) out.dissociation.push_back(dissociation_of(basis, row, seed));
  out.motifs = motifs_of(basis, config.recency_bias);
  return out;
}

}  // namespace

Findings find(const AnalysisRecord& record) {
  const AnalysisRecord* const one[] = {&record};
  return findings_of(one);
}

Findings pool(std::span<const AnalysisRecord> records) {
  if (records.empty()) throw data::Error("no runs to pool");
  std::vector<const AnalysisRecord*> all;
  for (const AnalysisRecord& record : records) all.push_back(&record);
  return findings_of(all);
}

}  // namespace routescope::analysis
