#include "analysis/record/record_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "analysis/record/list_field.h"
#include "analysis/record/record_effects.h"
#include "model/files/config.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;
using Names = std::vector<std::string>;

constexpr const char* mass_metric =
    "alpha summed over the set's routes, mean over the set's reads and all tokens; a read without such a route weighs "
    "0";
constexpr const char* alpha_metric =
    "softmax weight alpha of a read on a source: mean and variance over all tokens of all sequences";
constexpr const char* contribution_metric =
    "contribution of a source to its read, alpha_i <v_i, h> / |h|^2 with h = sum_i alpha_i v_i (alpha_i where h = 0), "
    "mean over tokens; of a set: summed over its routes, mean over its reads, one without such a route weighing 0";
constexpr const char* norm_mass_metric =
    "norm-weighted mass of a source in its read, |alpha_i v_i| / sum_j |alpha_j v_j|, mean over tokens; of a set: "
    "summed "
    "over its routes, mean over its reads, one without such a route weighing 0";
constexpr const char* closed_form_metric =
    "largest difference, over reads, sources and tokens, of alpha from the softmax of the read's biases, which it "
    "equals where all queries are zero";
constexpr const char* nll_metric =
    "negative log-likelihood of the next token, mean over the predicted tokens of a sequence, then over sequences";
constexpr const char* cost_metric =
    "forward work in tokens times reads, a whole pass over one token counting as all reads";

template <class At>
ProbeField field_at(const std::string& path, Names axes, const std::string& units, const std::string& description,
                    const At& at) {
  return data::field_at<ProbeRow>(path, std::move(axes), units, description, at);
}

// NOLINTNEXTLINE(readability-function-size): a table of fields.
RecordGroup atlas_group(const ProbeIdentity& identity) {
  RecordGroup group{
      "atlas",
      estimand(identity, describe(Ablation::mask) + "; of single routes",
               "estimate: <g, dy> + (1/2) <g~, dy>^2, summed over tokens: dy the exact change of what the read's "
               "sublayer makes, g the gradient of nll at it, g~ with labels drawn from the model; "
               "first_order: minus the gradient of nll "
               "with respect to a gate on exp(logit), summed over tokens; true_effect: " +
                   std::string(delta_metric),
               "nat/token"),
      {},
      [](const ProbeRow& row) { return !row.atlas.empty(); }};
  group.attributes.emplace_back("interval", fmt::format("{:g} % BCa bootstrap over documents, {} resamples",
                                                        100 * interval_level, bootstrap_resamples));
  group.attributes.emplace_back("test", "one-sided t tests over documents, corrected for skewness; doubled");
  group.attributes.emplace_back("adjustment", "Holm over the routes of a step that were masked");
  const Names by_route{"read", "source"}, by_check{"check"};
  const auto estimates = [](auto& row) { return &row.atlas.estimate; };
  const auto routes = [](auto& row) { return &row.atlas.first_order; };
  const auto checked = [](auto& row) { return &row.atlas.checked; };
  const auto itself = [](auto& estimate) { return &estimate; };
  const auto value = [](auto& estimate) { return &estimate.value; };
  const auto truth = [](auto& route) { return &route.true_effect; };
  group.fields = {
      list_number("estimate", by_route, "nat/token",
                  "estimated effect of masking the route; NaN where there is none or no other source", false, estimates,
                  value),
      list_interval("estimate_ci", by_route, "nat/token", "interval of estimate", false, estimates, itself),
      list_number("first_order", by_route, "nat/token", "first-order effect of masking the route; NaN alike", false,
                  routes, value),
      list_interval("first_order_ci", by_route, "nat/token", "interval of first_order", false, routes, itself),
      list_number("checked_read", by_check, "1", "read of each route that was really masked; -1: no further one", true,
                  checked, [](auto& route) { return &route.read; }),
      list_number("checked_source", by_check, "1", "and its source", true, checked,
                  [](auto& route) { return &route.column; }),
      list_number("checked_by", by_check, "1", "0: drawn at random from all routes; 1: among the strongest by estimate",
                  true, checked, [](auto& route) { return &route.by; }),
      list_number("true_effect", by_check, "nat/token", "what masking the route does", true, checked,
                  [](auto& route) { return &route.true_effect.value; }),
      list_interval("true_effect_ci", by_check, "nat/token", "interval of true_effect", true, checked, truth),
      list_number("true_p", by_check, "1", "two-sided p value of no true effect", true, checked,
                  [](auto& route) { return &route.p; }),
      list_number("true_p_adjusted", by_check, "1", "true_p, adjusted over the routes that were masked", true, checked,
                  [](auto& route) { return &route.p_adjusted; }),
  };
  for (ProbeField& field : group.fields) {
    if (field.path.starts_with("checked_")) field.type = data::hdf5::Type::i32;
  }
  const auto number = [&](const char* path, const char* units, const char* description, double Atlas::*member) {
    group.fields.push_back(
        field_at(path, {}, units, description, [member](auto& row) { return &(row.atlas.*member); }));
  };
  number("rank_correlation", "1", "Spearman's, of estimate and true_effect over the routes drawn at random",
         &Atlas::rank_correlation);
  number("first_order_rank_correlation", "1", "the same of first_order and true_effect",
         &Atlas::first_order_rank_correlation);
  number("median_relative_error", "1", "median over the routes drawn at random of |estimate - true| / |true|",
         &Atlas::median_relative_error);
  number("estimate_seconds", "s", "what the estimates took", &Atlas::estimate_seconds);
  number("check_seconds", "s", "what the true ablations took", &Atlas::check_seconds);
  number("check_passes", "1", "the same in plain forward passes, one of them intact", &Atlas::check_passes);
  return group;
}

/// Of a task: the m-th metric of its answers, under the intact model.
void add_metric(RecordGroup& intact, std::size_t m) {
  const std::string name = metric_names[m];
  intact.fields.push_back(field_at(name, {}, metric_units[m], describe(all_metrics[m]) + ", mean over prompts",
                                   [m](auto& row) { return &row.intact_metrics[m]; }));
  intact.fields.push_back(field_at(name + "_sequence", {"seq"}, metric_units[m], "the same of each prompt",
                                   [m](auto& row) { return &row.intact_metrics_sequence[m]; }));
}

RecordGroup cost_group(const ProbeIdentity& identity) {
  RecordGroup group{"cost", estimand(identity, "none", cost_metric, "1"), {}};
  const auto number = [](double ProbeCost::*member) { return [member](auto& row) { return &(row.cost.*member); }; };
  group.fields = {
      field_at("plain", {}, "1", "one intact forward pass over the tokens", number(&ProbeCost::plain)),
      field_at("computed", {}, "1", "what was computed", number(&ProbeCost::computed)),
      field_at("unshared", {}, "1", "the same ablations, each from the first read", number(&ProbeCost::unshared)),
      field_at("undecided", {}, "1", "shared, without stopping early", number(&ProbeCost::undecided)),
      field_at("seconds", {}, "s", "what the probe took", number(&ProbeCost::seconds)),
      field_at("plain_seconds", {}, "s", "of that, its intact passes with the head", number(&ProbeCost::plain_seconds)),
  };
  return group;
}

/// A mass beside alpha's: of every set, of every set and sequence, of every route.
RecordGroup mass_group(const ProbeIdentity& identity, const std::string& name, const char* metric,
                       Values ProbeRow::*of_sets, Values ProbeRow::*by_sequence, Values ProbeRow::*of_routes) {
  const auto member = [](Values ProbeRow::*at) { return [at](auto& row) { return &(row.*at); }; };
  return {"",
          estimand(identity, "none", metric, "1"),
          {field_at(name, {"slice"}, "1", "as mass, in place of alpha", member(of_sets)),
           field_at(name + "_sequence", {"slice", "seq"}, "1", "the same over the tokens of each sequence",
                    member(by_sequence)),
           field_at(name + "_mean", {"read", "source"}, "1",
                    "the same of each route; NaN where the read has no such source", member(of_routes))}};
}

}  // namespace

bool RecordGroup::has_checks() const {
  return std::any_of(fields.begin(), fields.end(), [](const ProbeField& field) {
    return std::count(field.axes.begin(), field.axes.end(), "check") > 0;
  });
}

void set_attributes(data::hdf5::Object& object, const RecordAttributes& attributes) {
  for (const auto& [name, value] : attributes)
    std::visit([&, &key = name](const auto& one) { object.set(key, one); }, value);
}

std::vector<double> row_values(const RecordGroup& group, const ProbeField& field, const ProbeRow& row,
                               std::int64_t size) {
  std::vector<double> values = field.get(row);
  const std::int64_t found = std::ssize(values);
  if (found > size || (found < size && found > 0 && !field.padded)) {
    throw std::logic_error(
        fmt::format("{} of step {}: found {} values, expected {}", group.path_of(field), row.step, found, size));
  }
  values.resize(static_cast<std::size_t>(size), data::missing_value(field.type));
  return values;
}

std::string class_axis(const TokenClasses& classes) {
  return classes.name + "_class";
}

RecordAttributes estimand(const ProbeIdentity& identity, const std::string& intervention, const std::string& metric,
                          const std::string& unit) {
  const ProbeTokens& tokens = identity.tokens;
  return {{"input_distribution",
           fmt::format("{}: {} sequences of {} tokens", tokens.origin, tokens.sequences, tokens.positions)},
          {"intervention", intervention},
          {"metric", metric},
          {"unit", unit},
          {"n", tokens.sequences},
          {"seed", static_cast<std::int64_t>(identity.settings.seed)}};
}

data::AxisLengths record_axes(const ProbeIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  data::AxisLengths axes{{"slice", std::ssize(identity.sets)}, {"seq", identity.tokens.sequences},
                         {"pos", identity.tokens.positions},   {"bound", 2},
                         {"read", plan.num_routed()},          {"source", plan.num_columns()},
                         {"reader", std::ssize(plan.reads)},   {"writer", std::ssize(plan.reads)}};
  for (const TokenClasses& classes : identity.classes) axes[class_axis(classes)] = std::ssize(classes.labels);
  return axes;
}

std::vector<RecordGroup> record_groups(const ProbeIdentity& identity) {
  std::vector<RecordGroup> groups;
  groups.push_back({"",
                    estimand(identity, "none", mass_metric, "1"),
                    {field_at("mass", {"slice"}, "1", "routing mass of the set", [](auto& row) { return &row.mass; }),
                     field_at("mass_sequence", {"slice", "seq"}, "1", "the same over the tokens of each sequence",
                              [](auto& row) { return &row.mass_sequence; })}});
  groups.push_back(
      {"",
       estimand(identity, "none", alpha_metric, "1"),
       {field_at("alpha_mean", {"read", "source"}, "1",
                 "mean weight of the read on the source; NaN where it has no such source",
                 [](auto& row) { return &row.alpha_mean; }),
        field_at("alpha_variance", {"read", "source"}, "1", "variance of that weight; 0 where content does not matter",
                 [](auto& row) { return &row.alpha_variance; })}});
  groups.push_back(mass_group(identity, "contribution", contribution_metric, &ProbeRow::contribution,
                              &ProbeRow::contribution_sequence, &ProbeRow::contribution_mean));
  groups.push_back(mass_group(identity, "norm_mass", norm_mass_metric, &ProbeRow::norm_mass,
                              &ProbeRow::norm_mass_sequence, &ProbeRow::norm_mass_mean));
  groups.push_back({"",
                    estimand(identity, "none", closed_form_metric, "1"),
                    {field_at("closed_form_error", {}, "1",
                              "largest |alpha - closed form of its biases|; NaN for a model with queries",
                              [](auto& row) { return &row.closed_form_error; })}});
  groups.push_back(
      {"intact",
       estimand(identity, "none", nll_metric, "nat/token"),
       {field_at("nll", {}, "nat/token", "nll of the intact model", [](auto& row) { return &row.intact_nll; }),
        field_at("nll_sequence", {"seq"}, "nat/token", "nll of each sequence",
                 [](auto& row) { return &row.intact_nll_sequence; }),
        field_at("reference_nll", {}, "nat/token",
                 "nll of the model at step 0; where that is not known ln(vocabulary), a uniform guess",
                 [](auto& row) { return &row.reference_nll; }),
        field_at(
            "margin", {}, "nat/token",
            "what counts as no effect: settings' margin times what was learned, reference_nll - nll (0 if negative)",
            [](auto& row) { return &row.margin; })}});
  for (std::size_t m = 0; identity.tokens.is_task() && m < num_metrics; ++m) add_metric(groups.back(), m);
  for (Ablation ablation : identity.settings.ablations) groups.push_back(effects_group(identity, ablation));
  for (bool frozen : {true, false}) {
    if (!(frozen ? identity.settings.frozen : identity.settings.direct)) continue;
    for (Ablation ablation : identity.settings.ablations) groups.push_back(path_group(identity, ablation, frozen));
  }
  if (identity.settings.controls > 0) {
    for (Matched matched : {Matched::alpha, Matched::contribution})
      for (Ablation ablation : identity.settings.ablations)
        groups.push_back(control_group(identity, ablation, matched));
  }
  groups.push_back(atlas_group(identity));
  groups.push_back(writers_group(identity));
  groups.push_back(cost_group(identity));
  return groups;
}

}  // namespace routescope::analysis
