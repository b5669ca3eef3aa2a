// Records of numbers drawn at random, in which no field is empty and no two numbers agree by accident; and the members
// of a row one by one. A member that is added to a row and not listed here does not compile.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "analysis/probe/jobs.h"
#include "analysis/record/record.h"
#include "analysis/routes/route_sets.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

/// visit(member, axes): its axes as a list of letters: q (sequence), d(raw), r(ead), c(olumn), s(lice), k (checked
/// route), w(riter); of lists only.
template <class Effect, class Visit>
void each_member_of_set(Effect& effect, const Visit& visit) {
  auto& [coverage, delta_nll_sequence, sequences_used, delta_nll, p_value, p_adjusted, p_equivalence,
         p_equivalence_adjusted, decision, kl, top1_agreement, delta_nll_class, control, contribution_control, frozen,
         direct, metrics] = effect;
  for (auto* member : {&coverage, &sequences_used, &p_value, &p_adjusted, &p_equivalence, &p_equivalence_adjusted, &kl,
                       &top1_agreement})
    visit(*member, "");
  visit(delta_nll_sequence, "q");
  visit(delta_nll, "");
  visit(decision, "");
  visit(delta_nll_class, "");
  for (auto& metric : metrics) {
    visit(metric.delta_sequence, "q");
    visit(metric.delta, "");
  }
  for (auto* of : {&control, &contribution_control}) {
    auto& [of_coverage, enumerated, sequence, of_delta_nll, excess, excess_p, excess_p_adjusted, overlap] = *of;
    visit(sequence, "q");
    visit(enumerated, "");
    visit(excess, "");
    for (auto* member : {&of_coverage, &of_delta_nll, &excess_p, &excess_p_adjusted, &overlap}) visit(*member, "");
  }
  for (auto* of : {&frozen, &direct}) {
    auto& [sequence, of_delta_nll, difference, p, of_p_adjusted, share] = *of;
    visit(sequence, "q");
    for (auto* member : {&of_delta_nll, &difference}) visit(*member, "");
    for (auto* member : {&p, &of_p_adjusted}) visit(*member, "");
    if (of == &frozen) visit(share, "");
  }
}

/// Of every ablation, beside its sets.
template <class Effects, class Visit>
void each_member_of_effects(Effects& effects, const Visit& visit) {
  auto& [ablation, sets, repaired_share] = effects;
  visit(repaired_share, "");
  for (auto& set : sets) each_member_of_set(set, visit);
  (void)ablation;
}

template <class AtlasType, class Visit>
void each_member_of_atlas(AtlasType& atlas, const Visit& visit) {
  auto& [estimate, first_order, checked, rank_correlation, first_order_rank_correlation, median_relative_error,
         estimate_seconds, check_seconds, check_passes] = atlas;
  visit(estimate, "rc");
  visit(first_order, "rc");
  visit(checked, "k");
  for (auto* member : {&rank_correlation, &first_order_rank_correlation, &median_relative_error, &estimate_seconds,
                       &check_seconds, &check_passes})
    visit(*member, "");
}

template <class WritersType, class Visit>
void each_member_of_writers(WritersType& writers, const Visit& visit) {
  auto& [contribution, norm_mass, mean_contribution, mean_norm_mass, embedding_part, zero, mean, passes, seconds] =
      writers;
  for (auto* member : {&contribution, &norm_mass}) visit(*member, "ww");
  for (auto* member : {&mean_contribution, &mean_norm_mass}) visit(*member, "w");
  visit(embedding_part, "rc");
  for (auto* list : {&zero, &mean}) {
    for (auto& effect : *list) {
      auto& [delta_nll_sequence, delta_nll, p_value, p_adjusted, p_equivalence, p_equivalence_adjusted] = effect;
      visit(delta_nll_sequence, "q");
      visit(delta_nll, "");
      for (auto* member : {&p_value, &p_adjusted, &p_equivalence, &p_equivalence_adjusted}) visit(*member, "");
    }
  }
  for (auto* member : {&passes, &seconds}) visit(*member, "");
}

/// All but the ablations, the atlas and the writers, which have their own.
template <class Row, class Visit>
void each_member_of_row(Row& row, const Visit& visit) {
  auto& [step, model_sha256, mass, mass_sequence, contribution, contribution_sequence, contribution_mean, norm_mass,
         norm_mass_sequence, norm_mass_mean, alpha_mean, alpha_variance, reference_nll, margin, intact_nll,
         intact_nll_sequence, intact_metrics, intact_metrics_sequence, ablations, atlas, writers, cost,
         closed_form_error] = row;
  visit(step, "");
  visit(model_sha256, "");
  for (auto* member : {&mass, &contribution, &norm_mass}) visit(*member, "s");
  for (auto* member : {&mass_sequence, &contribution_sequence, &norm_mass_sequence}) visit(*member, "sq");
  for (auto* member : {&alpha_mean, &contribution_mean, &norm_mass_mean}) visit(*member, "rc");
  visit(alpha_variance, "rc");
  for (auto* member : {&reference_nll, &margin, &intact_nll}) visit(*member, "");
  visit(intact_nll_sequence, "q");
  for (auto& metric : intact_metrics) visit(metric, "");
  for (auto& metric : intact_metrics_sequence) visit(metric, "q");
  visit(closed_form_error, "");
  auto& [plain, computed, unshared, undecided, seconds, plain_seconds] = cost;
  for (auto* member : {&plain, &computed, &unshared, &undecided, &seconds, &plain_seconds}) visit(*member, "");
  (void)ablations;
  (void)atlas;
  (void)writers;
}

/// Members as text: two texts are equal where all bits are.
class Printed {
 public:
  template <class T>
  void operator()(const T& member, const char*) const {
    add(member);
  }
  const std::string& text() const { return out_; }

 private:
  void add(bool value) const { out_ += value ? "yes " : "no "; }
  void add(double value) const { out_ += fmt::format("{:a} ", value); }
  void add(std::int64_t value) const { out_ += fmt::format("{} ", value); }
  void add(const std::string& value) const { out_ += value + "\n"; }
  void add(analysis::Decision value) const { add(static_cast<std::int64_t>(value)); }
  void add(const analysis::Estimate& estimate) const {
    for (double value : {estimate.value, estimate.ci.lower, estimate.ci.upper}) add(value);
  }
  void add(const analysis::CheckedRoute& route) const {
    out_ += fmt::format("({}, {}, {}) ", route.read, route.column, static_cast<int>(route.by));
    add(route.true_effect);
    add(route.p);
    add(route.p_adjusted);
  }
  template <class T>
  void add(const std::vector<T>& values) const {
    for (const T& value : values) add(value);
    out_ += "\n";
  }
  mutable std::string out_;
};

inline std::string text_of(const analysis::ProbeRow& row) {
  const Printed printed;
  each_member_of_row(row, printed);
  for (const analysis::AblationEffects& effects : row.ablations) {
    printed(to_string(effects.ablation), "");
    each_member_of_effects(effects, printed);
  }
  each_member_of_atlas(row.atlas, printed);
  each_member_of_writers(row.writers, printed);
  return printed.text();
}

/// The identity of a measurement with everything there is to measure.
inline analysis::ProbeIdentity full_identity() {
  const model::ModelConfig config = micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  analysis::ProbeIdentity identity;
  identity.tokens = micro_tokens(4, 8);
  identity.tokens.documents = {3, 3, 5, 11};
  identity.tokens.answers = {{6, 3}, {2, -1}, {1, 0}, {4, 36}};
  identity.task = {"planted", std::string(64, 'd'), analysis::Direction::denoising};
  identity.patch = micro_tokens(4, 8, 14);
  identity.settings.seed = 9;
  identity.settings.ablations = analysis::whole_ablations();
  for (analysis::Ablation one : {analysis::Ablation::mean_key, analysis::Ablation::mean_both})
    identity.settings.ablations.push_back(one);
  identity.settings.frozen = identity.settings.direct = true;
  identity.settings.by_repeat = true;
  for (const analysis::RouteSet& set : analysis::slice_sets(model::ReadPlan(config))) identity.sets.push_back(set.name);
  identity.model_config = config.to_json().dump();
  analysis::TokenClasses one{"repeat", {"new", "repeated"}, {}}, other{"class", {"a", "b", "c"}, {}};
  for (int i = 0; i < 4 * 7; ++i) {
    one.of_token.push_back(i % 2);
    other.of_token.push_back(i % 4 - 1);
  }
  identity.classes = {one, other};
  identity.preregistration_sha256 = std::string(64, 'e');
  return identity;
}

class RandomRow {
 public:
  RandomRow(const analysis::ProbeIdentity& identity, std::uint64_t seed) : identity_(identity), random_(seed) {}

  analysis::ProbeRow row(std::int64_t step, std::size_t checks) {
    checks_ = checks;
    analysis::ProbeRow out;
    const auto fill = [this](auto& member, const std::string& axes) { this->fill(member, axes); };
    each_member_of_row(out, fill);
    out.step = step;
    out.model_sha256 = "digest of step " + std::to_string(step);
    for (analysis::Ablation ablation : identity_.settings.ablations) {
      analysis::AblationEffects& effects = out.ablations.emplace_back();
      effects.ablation = ablation;
      effects.sets.resize(identity_.sets.size());
      each_member_of_effects(effects, fill);
    }
    if (checks > 0) each_member_of_atlas(out.atlas, fill);
    if (checks == 0 || checks > 3) {
      out.writers.zero.resize(identity_.plan().reads.size());
      out.writers.mean = out.writers.zero;
      each_member_of_writers(out.writers, fill);
    }
    return out;
  }

 private:
  double draw() { return std::normal_distribution<double>(0, 1)(random_); }
  std::size_t size(const std::string& axes) const {
    const model::ReadPlan plan = identity_.plan();
    std::size_t out = 1;
    for (char axis : axes) {
      out *= axis == 's'   ? identity_.sets.size()
             : axis == 'q' ? static_cast<std::size_t>(identity_.tokens.sequences)
             : axis == 'r' ? static_cast<std::size_t>(plan.num_routed())
             : axis == 'c' ? static_cast<std::size_t>(plan.num_columns())
             : axis == 'w' ? plan.reads.size()
                           : checks_;
    }
    return out;
  }

  void fill(bool& member, const std::string&) { member = random_() % 2 == 0; }
  void fill(double& member, const std::string&) { member = draw(); }
  void fill(analysis::Estimate& member, const std::string&) { member = {draw(), {draw(), draw()}}; }
  void fill(analysis::Decision& member, const std::string&) { member = static_cast<analysis::Decision>(random_() % 3); }
  void fill(std::vector<double>& member, const std::string& axes) {
    for (std::size_t i = 0; i < size(axes); ++i) member.push_back(draw());
  }
  void fill(std::vector<analysis::Estimate>& member, const std::string& axes) {
    member.resize(size(axes));
    for (analysis::Estimate& one : member) fill(one, "");
  }
  void fill(std::vector<analysis::CheckedRoute>& member, const std::string& axes) {
    for (std::size_t i = 0; i < size(axes); ++i) {
      member.push_back({static_cast<int>(random_() % 5),
                        static_cast<int>(random_() % 4),
                        static_cast<analysis::CheckedBy>(random_() % 2),
                        {}});
      fill(member.back().true_effect, "");
      member.back().p = draw();
      member.back().p_adjusted = draw();
    }
  }
  void fill(std::vector<std::vector<double>>& member, const std::string&) {
    for (const analysis::TokenClasses& classes : identity_.classes) {
      auto& values = member.emplace_back();
      for (std::size_t i = 0; i < classes.labels.size(); ++i) values.push_back(draw());
    }
  }
  void fill(std::int64_t&, const std::string&) {}
  void fill(std::string&, const std::string&) {}

  const analysis::ProbeIdentity& identity_;
  std::mt19937_64 random_;
  std::size_t checks_ = 0;
};

/// Rows of steps 0, 1 and 4; the last two have an atlas, of 3 and 5 checked routes, the first and the last writers.
inline analysis::AnalysisRecord filled_record() {
  analysis::AnalysisRecord record;
  record.identity = full_identity();
  RandomRow random(record.identity, 31);
  record.put(random.row(4, 5));
  record.put(random.row(0, 0));
  record.put(random.row(1, 3));
  return record;
}

}  // namespace routescope::testing
