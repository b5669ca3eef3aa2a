#include "analysis/record/record_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

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
constexpr const char* closed_form_metric =
    "largest difference, over reads, sources and tokens, of alpha from the softmax of the read's biases, which it "
    "equals where all queries are zero";
constexpr const char* nll_metric =
    "negative log-likelihood of the next token, mean over the predicted tokens of a sequence, then over sequences";
constexpr const char* delta_metric =
    "nll of the ablated minus nll of the intact model, mean over the predicted tokens of a sequence, then over "
    "sequences";
constexpr const char* cost_metric =
    "forward work in tokens times reads, a whole pass over one token counting as all reads";

/// `at(row)`: a pointer to the values, of a const row to const ones; null where the row has none.
template <class At>
RecordField values_field(const std::string& name, Names axes, const std::string& units, const std::string& description,
                         const At& at) {
  return {name,
          std::move(axes),
          units,
          description,
          [at](const ProbeRow& row) {
            const Values* values = at(row);
            return values ? *values : Values{};
          },
          [at](ProbeRow& row, Values values) { *at(row) = std::move(values); }};
}

template <class At>
RecordField number_field(const std::string& name, const std::string& units, const std::string& description,
                         const At& at) {
  return {name,
          {},
          units,
          description,
          [at](const ProbeRow& row) { return Values{*at(row)}; },
          [at](ProbeRow& row, const Values& values) { *at(row) = values.front(); }};
}

/// Two vectors of lower and upper ends as one dataset with a last axis `bound`.
template <class Lower, class Upper>
RecordField interval_field(const std::string& name, Names axes, const std::string& units,
                           const std::string& description, const Lower& lower, const Upper& upper) {
  axes.emplace_back("bound");
  return {name,
          std::move(axes),
          units,
          description,
          [lower, upper](const ProbeRow& row) {
            const Values *low = lower(row), *high = upper(row);
            Values bounds;
            if (!low || low->size() != high->size()) return bounds;
            for (std::size_t i = 0; i < low->size(); ++i) bounds.insert(bounds.end(), {(*low)[i], (*high)[i]});
            return bounds;
          },
          [lower, upper](ProbeRow& row, const Values& bounds) {
            for (std::size_t i = 0; i < bounds.size(); i += 2) {
              lower(row)->push_back(bounds[i]);
              upper(row)->push_back(bounds[i + 1]);
            }
          }};
}

/// A vector of a row itself.
auto of_row(Values ProbeRow::*member) {
  return [member](auto& row) { return &(row.*member); };
}

template <class Row>
auto* effects_in(Row& row, Ablation ablation) {
  auto* begin = row.ablations.data();
  for (auto* one = begin; one != begin + row.ablations.size(); ++one) {
    if (one->ablation == ablation) return one;
  }
  return decltype(begin){nullptr};
}

/// A vector of the effects of one ablation.
auto of_effects(Ablation ablation, Values AblationEffects::*member) {
  return [ablation, member](auto& row) {
    auto* effects = effects_in(row, ablation);
    return effects ? &(effects->*member) : nullptr;
  };
}

auto of_atlas(Values Atlas::*member) {
  return [member](auto& row) { return &(row.atlas.*member); };
}

RecordField decision_field(Ablation ablation) {
  RecordField field{"decision",
                    {"slice"},
                    "1",
                    "of the confidence sequence: 0 open, 1 effect (not zero), 2 absent (within the margin); 0 "
                    "without until_decided",
                    [ablation](const ProbeRow& row) {
                      Values codes;
                      if (const auto* effects = effects_in(row, ablation)) {
                        for (Decision decision : effects->decision) codes.push_back(static_cast<double>(decision));
                      }
                      return codes;
                    },
                    [ablation](ProbeRow& row, const Values& codes) {
                      for (double code : codes)
                        effects_in(row, ablation)->decision.push_back(static_cast<Decision>(code));
                    }};
  field.type = data::hdf5::Type::u8;
  return field;
}

/// One end of the checked routes: the read, or the source's column.
RecordField route_field(const char* name, const char* description, int std::pair<int, int>::*end) {
  RecordField field{name,
                    {"check"},
                    "1",
                    description,
                    [end](const ProbeRow& row) {
                      Values out;
                      for (const auto& route : row.atlas.checked) out.push_back(route.*end);
                      return out;
                    },
                    [end](ProbeRow& row, const Values& values) {
                      std::vector<std::pair<int, int>>& routes = row.atlas.checked;
                      for (std::size_t i = 0; i < values.size() && values[i] >= 0; ++i) {
                        if (i == routes.size()) routes.emplace_back(0, 0);
                        routes[i].*end = static_cast<int>(values[i]);
                      }
                    }};
  field.type = data::hdf5::Type::i32;
  field.padded = true;
  return field;
}

/// Of the routes that the row checked, which were read before.
RecordField checked_field(RecordField field) {
  field.padded = true;
  field.set = [whole = field.set, wide = field.axes.back() == "bound"](ProbeRow& row, Values values) {
    values.resize(row.atlas.checked.size() * (wide ? 2 : 1));
    whole(row, std::move(values));
  };
  return field;
}

std::string interval_text(const ProbeSettings& settings) {
  if (settings.until_decided) {
    return fmt::format(
        "{:g} % confidence sequence of the mean over sequences (normal mixture on the t statistic, effect scale {:g}), "
        "valid at every number of sequences",
        100 * interval_level, sequential_effect_scale);
  }
  return fmt::format("{:g} % BCa bootstrap over sequences, {} resamples, expanded by sqrt(n/(n-1)) t",
                     100 * interval_level, bootstrap_resamples);
}

std::string test_text(const ProbeSettings& settings) {
  if (settings.until_decided) {
    return fmt::format("anytime-valid p value of the same normal mixture, a look every {} sequences",
                       settings.look_every);
  }
  return fmt::format(
      "two-sided sign flips of the sequences' differences, of symmetry about zero: all 2^n for n <= {}, else {} random "
      "ones",
      exact_sign_flip_n, sign_flips);
}

/// What the intervals and p values of a group are, for effects and for their excess over controls alike.
void add_inference(RecordAttributes& attributes, const ProbeSettings& settings) {
  attributes.emplace_back("interval", interval_text(settings));
  attributes.emplace_back("test", test_text(settings));
  attributes.emplace_back("adjustment", "Holm over the sets of a step that were tested (coverage > 0)");
  if (settings.until_decided) {
    attributes.emplace_back(
        "stopping_rule",
        fmt::format("a set is dropped after a look, every {} sequences, at which its confidence sequence at level 1 - "
                    "{:g} / (tested sets) excludes 0 (effect) or lies within the margin (absent)",
                    settings.look_every, 1 - interval_level));
  }
}

RecordGroup effects_group(const ProbeIdentity& identity, Ablation ablation) {
  const ProbeSettings& settings = identity.settings;
  RecordGroup group{to_string(ablation), estimand(identity, describe(ablation), delta_metric, "nat/token"), {}};
  add_inference(group.attributes, settings);
  group.attributes.emplace_back("margin", settings.margin);
  group.attributes.emplace_back("equivalence_test",
                                "two one-sided t tests over sequences of |effect| >= margin, corrected for skewness");
  const auto at = [&](Values AblationEffects::*member) { return of_effects(ablation, member); };
  using E = AblationEffects;
  const Names by_set{"slice"};
  group.fields = {
      values_field("delta_nll", by_set, "nat/token", "effect of the ablation; NaN where it can change nothing",
                   at(&E::delta_nll)),
      interval_field("delta_nll_ci", by_set, "nat/token", "interval of delta_nll", at(&E::ci_lower), at(&E::ci_upper)),
      values_field("delta_nll_sequence", {"slice", "seq"}, "nat/token",
                   "delta_nll of each sequence; NaN after the set was decided", at(&E::delta_nll_sequence)),
      values_field("p_value", by_set, "1", "two-sided p value of no effect", at(&E::p_value)),
      values_field("p_adjusted", by_set, "1", "p_value, adjusted", at(&E::p_adjusted)),
      values_field("p_equivalence", by_set, "1", "p value of an effect of the margin or more, either way",
                   at(&E::p_equivalence)),
      values_field("p_equivalence_adjusted", by_set, "1", "p_equivalence, adjusted", at(&E::p_equivalence_adjusted)),
      decision_field(ablation),
      values_field("kl", by_set, "nat/token",
                   "KL(intact || ablated) of the next-token distributions, mean over predicted tokens", at(&E::kl)),
      values_field("top1_agreement", by_set, "1", "share of predicted tokens whose likeliest token stays",
                   at(&E::top1_agreement)),
      values_field("coverage", by_set, "1", "share of the set's reads that the ablation could change",
                   at(&E::coverage)),
      values_field("sequences_used", by_set, "1", "sequences measured before the set was decided",
                   at(&E::sequences_used)),
  };
  for (std::size_t c = 0; c < identity.classes.size(); ++c) {
    group.fields.push_back(
        values_field("delta_nll_" + identity.classes[c].name, {"slice", class_axis(identity.classes[c])}, "nat/token",
                     "effect on the predicted tokens of each class, mean over them", [ablation, c](auto& row) {
                       auto* effects = effects_in(row, ablation);
                       if constexpr (!std::is_const_v<std::remove_reference_t<decltype(row)>>) {
                         if (effects && effects->delta_nll_class.size() <= c) effects->delta_nll_class.resize(c + 1);
                       }
                       return effects && effects->delta_nll_class.size() > c ? &effects->delta_nll_class[c] : nullptr;
                     }));
  }
  return group;
}

RecordGroup control_group(const ProbeIdentity& identity, Ablation ablation) {
  const ProbeSettings& settings = identity.settings;
  RecordGroup group{
      "control/" + to_string(ablation),
      estimand(identity,
               describe(ablation) +
                   "; of random sources, the last one in part, that hold, on average, the set's mass in "
                   "each of its reads, instead of the set's own; a read whose every source is the "
                   "set's is as in the set",
               fmt::format("{}, mean over {} draws of the sources", delta_metric, settings.controls), "nat/token"),
      {}};
  add_inference(group.attributes, settings);
  group.attributes.emplace_back("draws", std::int64_t{settings.controls});
  const auto at = [&](Values AblationEffects::*member) { return of_effects(ablation, member); };
  using E = AblationEffects;
  const Names by_set{"slice"};
  group.fields = {
      values_field("delta_nll", by_set, "nat/token", "effect of the control", at(&E::control)),
      values_field("delta_nll_sequence", {"slice", "seq"}, "nat/token", "the same of each sequence",
                   at(&E::control_sequence)),
      values_field("excess", by_set, "nat/token", "effect of the set minus that of its control, paired over sequences",
                   at(&E::excess)),
      interval_field("excess_ci", by_set, "nat/token", "interval of excess", at(&E::excess_lower),
                     at(&E::excess_upper)),
      values_field("excess_p", by_set, "1", "two-sided p value of no excess", at(&E::excess_p)),
      values_field("excess_p_adjusted", by_set, "1", "excess_p, adjusted", at(&E::excess_p_adjusted)),
      values_field("overlap", by_set, "1", "share of the controls' mass that was the set's own",
                   at(&E::control_overlap)),
  };
  return group;
}

RecordGroup atlas_group(const ProbeIdentity& identity) {
  RecordGroup group{
      "atlas",
      estimand(identity, describe(Ablation::mask) + "; of single routes",
               "minus the gradient of nll with respect to a gate on exp(logit), summed over tokens: first order in the "
               "gate of the nll without the route minus nll, mean over predicted tokens and sequences",
               "nat/token"),
      {},
      [](const ProbeRow& row) { return !row.atlas.empty(); }};
  group.attributes.emplace_back("interval", fmt::format("{:g} % BCa bootstrap over sequences, {} resamples",
                                                        100 * interval_level, bootstrap_resamples));
  const Names by_route{"read", "source"};
  const auto number = [](double Atlas::*member) { return [member](auto& row) { return &(row.atlas.*member); }; };
  group.fields = {
      values_field("first_order", by_route, "nat/token",
                   "first-order effect of masking the route; NaN where there is none or no other source",
                   of_atlas(&Atlas::first_order)),
      interval_field("first_order_ci", by_route, "nat/token", "interval of first_order",
                     of_atlas(&Atlas::first_order_lower), of_atlas(&Atlas::first_order_upper)),
      route_field("checked_read", "read of each route that was really masked; -1: no further one",
                  &std::pair<int, int>::first),
      route_field("checked_source", "and its source", &std::pair<int, int>::second),
      checked_field(values_field("true_effect", {"check"}, "nat/token", "what masking the route does",
                                 of_atlas(&Atlas::true_effect))),
      checked_field(interval_field("true_effect_ci", {"check"}, "nat/token", "interval of true_effect",
                                   of_atlas(&Atlas::true_lower), of_atlas(&Atlas::true_upper))),
      number_field("rank_correlation", "1", "Spearman's, of first_order and true_effect over the checked routes",
                   number(&Atlas::rank_correlation)),
      RecordField{"rank_correlation_ci",
                  {"bound"},
                  "1",
                  "interval of rank_correlation, bootstrap over sequences",
                  [](const ProbeRow& row) {
                    return Values{row.atlas.rank_correlation_ci.lower, row.atlas.rank_correlation_ci.upper};
                  },
                  [](ProbeRow& row, const Values& bounds) {
                    row.atlas.rank_correlation_ci = {bounds[0], bounds[1]};
                  }},
      number_field("median_relative_error", "1", "median over the checked routes of |first_order - true| / |true|",
                   number(&Atlas::median_relative_error)),
  };
  return group;
}

RecordGroup cost_group(const ProbeIdentity& identity) {
  RecordGroup group{"cost", estimand(identity, "none", cost_metric, "1"), {}};
  const auto number = [](double ProbeCost::*member) { return [member](auto& row) { return &(row.cost.*member); }; };
  group.fields = {
      number_field("plain", "1", "one intact forward pass over the tokens", number(&ProbeCost::plain)),
      number_field("computed", "1", "what was computed", number(&ProbeCost::computed)),
      number_field("unshared", "1", "the same ablations, each from the first read", number(&ProbeCost::unshared)),
      number_field("undecided", "1", "shared, without stopping early", number(&ProbeCost::undecided)),
      number_field("seconds", "s", "what the probe took", number(&ProbeCost::seconds)),
      number_field("plain_seconds", "s", "of that, its intact passes with the head", number(&ProbeCost::plain_seconds)),
  };
  return group;
}

}  // namespace

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

std::map<std::string, std::int64_t> record_axes(const ProbeIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  std::map<std::string, std::int64_t> axes{{"slice", std::ssize(identity.sets)}, {"seq", identity.tokens.sequences},
                                           {"pos", identity.tokens.positions},   {"bound", 2},
                                           {"read", plan.num_routed()},          {"source", plan.num_columns()}};
  for (const TokenClasses& classes : identity.classes) axes[class_axis(classes)] = std::ssize(classes.labels);
  return axes;
}

std::vector<RecordGroup> record_groups(const ProbeIdentity& identity) {
  std::vector<RecordGroup> groups;
  groups.push_back({"",
                    estimand(identity, "none", mass_metric, "1"),
                    {values_field("mass", {"slice"}, "1", "routing mass of the set", of_row(&ProbeRow::mass)),
                     values_field("mass_sequence", {"slice", "seq"}, "1", "the same over the tokens of each sequence",
                                  of_row(&ProbeRow::mass_sequence))}});
  groups.push_back(
      {"",
       estimand(identity, "none", alpha_metric, "1"),
       {values_field("alpha_mean", {"read", "source"}, "1",
                     "mean weight of the read on the source; NaN where it has no such source",
                     of_row(&ProbeRow::alpha_mean)),
        values_field("alpha_variance", {"read", "source"}, "1",
                     "variance of that weight; 0 where content does not matter", of_row(&ProbeRow::alpha_variance))}});
  groups.push_back({"",
                    estimand(identity, "none", closed_form_metric, "1"),
                    {number_field("closed_form_error", "1",
                                  "largest |alpha - closed form of its biases|; NaN for a model with queries",
                                  [](auto& row) { return &row.closed_form_error; })}});
  groups.push_back(
      {"intact",
       estimand(identity, "none", nll_metric, "nat/token"),
       {number_field("nll", "nat/token", "nll of the intact model", [](auto& row) { return &row.intact_nll; }),
        values_field("nll_sequence", {"seq"}, "nat/token", "nll of each sequence",
                     of_row(&ProbeRow::intact_nll_sequence))}});
  for (Ablation ablation : identity.settings.ablations) groups.push_back(effects_group(identity, ablation));
  if (identity.settings.controls > 0) {
    for (Ablation ablation : identity.settings.ablations) groups.push_back(control_group(identity, ablation));
  }
  groups.push_back(atlas_group(identity));
  groups.push_back(cost_group(identity));
  return groups;
}

}  // namespace routescope::analysis
