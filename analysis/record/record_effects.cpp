#include "analysis/record/record_effects.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/probe/jobs.h"
#include "analysis/record/list_field.h"
#include "analysis/statistics/sequential.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;
using Names = std::vector<std::string>;

/// Datasets [slice, ...] of one ablation.
class SetFields {
 public:
  SetFields(const ProbeIdentity& identity, Ablation ablation)
      : sequences_(static_cast<std::size_t>(identity.tokens.sequences)), sets_{ablation} {}

  template <class At>
  ProbeField number(const std::string& path, const std::string& units, const std::string& description,
                    const At& at) const {
    return list_number(path, {"slice"}, units, description, false, sets_, at);
  }
  template <class At>
  ProbeField interval(const std::string& path, const std::string& description, const At& at,
                      const std::string& units = "nat/token") const {
    return list_interval(path, {"slice"}, units, description, false, sets_, at);
  }
  template <class At>
  ProbeField sequences(const std::string& description, const At& at) const {
    return list_field(
        "delta_nll_sequence", {"slice", "seq"}, "nat/token", description, sequences_, false, sets_,
        [at](const SetEffect& set) { return *at(set); },
        [at](SetEffect& set, const Values& values) { *at(set) = values; });
  }
  /// AblationEffects::repaired_share.
  template <class Get, class Put>
  ProbeField repaired_share(const std::string& path, const Names& axes, const std::string& description, const Get& get,
                            const Put& put) const {
    const auto share = [ablation = sets_.ablation](auto& row) {
      for (auto& one : row.ablations)
        if (one.ablation == ablation) return &one.repaired_share;
      return static_cast<decltype(&row.ablations.front().repaired_share)>(nullptr);
    };
    return {{path, axes, "1", description},
            [=](const ProbeRow& row) { return share(row) ? get(*share(row)) : Values{}; },
            [=](ProbeRow& row, const Values& values) { put(*share(row), values); }};
  }
  /// Of a task: the effect on the m-th metric of the answers.
  std::vector<ProbeField> metric(std::size_t m) const {
    const std::string name = std::string("delta_") + metric_names[m], units = metric_units[m];
    const auto delta = [m](auto& set) { return &set.metrics[m].delta; };
    return {number(name, units, describe(all_metrics[m]) + ": ablated minus intact, mean over the prompts measured",
                   [m](auto& set) { return &set.metrics[m].delta.value; }),
            list_interval(name + "_ci", {"slice"}, units, "interval of " + name, false, sets_, delta),
            list_field(
                name + "_sequence", {"slice", "seq"}, units, "the same of each prompt", sequences_, false, sets_,
                [m](const SetEffect& set) { return set.metrics[m].delta_sequence; },
                [m](SetEffect& set, const Values& values) { set.metrics[m].delta_sequence = values; })};
  }
  ProbeField of_class(const TokenClasses& classes, std::size_t c) const {
    return list_field(
        "delta_nll_" + classes.name, {"slice", class_axis(classes)}, "nat/token",
        "effect on the predicted tokens of each class, mean over them", classes.labels.size(), false, sets_,
        [c](const SetEffect& set) { return c < set.delta_nll_class.size() ? set.delta_nll_class[c] : Values{}; },
        [c](SetEffect& set, const Values& values) {
          if (set.delta_nll_class.size() <= c) set.delta_nll_class.resize(c + 1);
          set.delta_nll_class[c] = values;
        });
  }

 private:
  struct Sets {
    Ablation ablation;
    template <class Row>
    auto* operator()(Row& row) const {
      const auto found = std::find_if(row.ablations.begin(), row.ablations.end(),
                                      [&](const AblationEffects& one) { return one.ablation == ablation; });
      return found == row.ablations.end() ? nullptr : &found->sets;
    }
  };
  std::size_t sequences_;
  Sets sets_;
};

std::string interval_text(const ProbeSettings& settings) {
  if (settings.until_decided) {
    return fmt::format(
        "{:g} % confidence sequence of the mean over documents (normal mixture on the t statistic, effect scale {:g}), "
        "valid at every number of documents",
        100 * interval_level, sequential_effect_scale);
  }
  return fmt::format("{:g} % BCa bootstrap over documents, {} resamples, expanded by sqrt(n/(n-1)) t",
                     100 * interval_level, bootstrap_resamples);
}

std::string test_text(const ProbeSettings& settings) {
  if (settings.until_decided) {
    return fmt::format("anytime-valid p value of the same normal mixture, a look every {} sequences",
                       settings.look_every);
  }
  return fmt::format(
      "two-sided sign flips of the documents' differences, of symmetry about zero: all 2^n for n <= {}, else {} random "
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

}  // namespace

RecordGroup effects_group(const ProbeIdentity& identity, Ablation ablation) {
  const ProbeSettings& settings = identity.settings;
  RecordGroup group{to_string(ablation), estimand(identity, describe(ablation), delta_metric, "nat/token"), {}};
  add_inference(group.attributes, settings);
  group.attributes.emplace_back("margin", settings.margin);
  group.attributes.emplace_back("margin_unit", "share of what was learned: nats a token in /intact/margin");
  group.attributes.emplace_back("equivalence_test",
                                "two one-sided t tests over documents of |effect| >= margin, corrected for skewness");
  const SetFields set(identity, ablation);
  group.fields = {
      set.number("delta_nll", "nat/token", "effect of the ablation; NaN where it can change nothing",
                 [](auto& e) { return &e.delta_nll.value; }),
      set.interval("delta_nll_ci", "interval of delta_nll", [](auto& e) { return &e.delta_nll; }),
      set.sequences("delta_nll of each sequence; NaN after the set was decided",
                    [](auto& e) { return &e.delta_nll_sequence; }),
      set.number("p_value", "1", "two-sided p value of no effect", [](auto& e) { return &e.p_value; }),
      set.number("p_adjusted", "1", "p_value, adjusted", [](auto& e) { return &e.p_adjusted; }),
      set.number("p_equivalence", "1", "p value of an effect of the margin or more, either way",
                 [](auto& e) { return &e.p_equivalence; }),
      set.number("p_equivalence_adjusted", "1", "p_equivalence, adjusted",
                 [](auto& e) { return &e.p_equivalence_adjusted; }),
      set.number("decision", "1",
                 "of the confidence sequence: 0 open, 1 effect (not zero), 2 absent (within the margin); 0 without "
                 "until_decided",
                 [](auto& e) { return &e.decision; }),
      set.number("kl", "nat/token", "KL(intact || ablated) of the next-token distributions, mean over predicted tokens",
                 [](auto& e) { return &e.kl; }),
      set.number("top1_agreement", "1", "share of predicted tokens whose likeliest token stays",
                 [](auto& e) { return &e.top1_agreement; }),
      set.number("coverage", "1", "share of the set's reads that the ablation could change",
                 [](auto& e) { return &e.coverage; }),
      set.number("sequences_used", "1", "sequences measured before the set was decided",
                 [](auto& e) { return &e.sequences_used; }),
  };
  for (ProbeField& field : group.fields) {
    if (field.path == "decision") field.type = data::hdf5::Type::u8;
  }
  for (std::size_t c = 0; c < identity.classes.size(); ++c)
    group.fields.push_back(set.of_class(identity.classes[c], c));
  for (std::size_t m = 0; identity.tokens.is_task() && m < num_metrics; ++m)
    for (ProbeField& field : set.metric(m)) group.fields.push_back(std::move(field));
  return group;
}

RecordGroup path_group(const ProbeIdentity& identity, Ablation ablation, bool frozen) {
  const ProbeSettings& settings = identity.settings;
  const std::string name = frozen ? "frozen" : "direct", difference = frozen ? "repaired" : "mediated";
  RecordGroup group{
      fmt::format("{}/{}", name, to_string(ablation)),
      estimand(
          identity,
          fmt::format("{}; {}", describe(ablation),
                      frozen ? "every read from the set's first one on keeps the weights of the intact model, but "
                               "for what the ablation does to the set's own routes"
                             : "each of the set's sublayers runs on the ablated read, with its sources intact, and "
                               "the last read alone sees what they make of it"),
          delta_metric, "nat/token"),
      {}};
  add_inference(group.attributes, settings);
  for (auto& [key, value] : group.attributes) {
    if (key == "test" && !settings.until_decided)
      value = "one-sided t tests over documents, corrected for skewness; doubled";
  }
  const SetFields set(identity, ablation);
  const auto path = [frozen](auto& effect) -> auto& {
    return frozen ? effect.frozen : effect.direct;
  };
  const std::string what = frozen ? "frozen minus total effect: what later routing repairs"
                                  : "total minus direct effect: what goes through other sublayers";
  group.fields = {
      set.number("delta_nll", "nat/token", "effect of the ablation along these ways",
                 [=](auto& e) { return &path(e).delta_nll.value; }),
      set.interval("delta_nll_ci", "interval of delta_nll", [=](auto& e) { return &path(e).delta_nll; }),
      set.sequences("the same of each sequence", [=](auto& e) { return &path(e).delta_nll_sequence; }),
      set.number(difference, "nat/token", what, [=](auto& e) { return &path(e).difference.value; }),
      set.interval(difference + "_ci", "interval of " + difference, [=](auto& e) { return &path(e).difference; }),
      set.number(difference + "_p", "1", "two-sided p value of 0", [=](auto& e) { return &path(e).p; }),
      set.number(difference + "_p_adjusted", "1", difference + "_p, adjusted",
                 [=](auto& e) { return &path(e).p_adjusted; }),
  };
  if (!frozen) return group;
  group.attributes.emplace_back("share_interval",
                                "Fieller's, of the ratio of means over documents; NaN where the mean of delta_nll is "
                                "not shown to be above 0");
  group.fields.push_back(
      set.number("repaired_share", "1", "repaired over delta_nll", [=](auto& e) { return &path(e).share.value; }));
  group.fields.push_back(set.interval(
      "repaired_share_ci", "interval of repaired_share", [=](auto& e) { return &path(e).share; }, "1"));
  group.fields.push_back(set.repaired_share(
      "repaired_share_all", {}, "repaired over delta_nll, summed over the sets",
      [](const Estimate& e) { return Values{e.value}; },
      [](Estimate& e, const Values& values) { e.value = values[0]; }));
  group.fields.push_back(set.repaired_share(
      "repaired_share_all_ci", {"bound"}, "its interval",
      [](const Estimate& e) {
        return Values{e.ci.lower, e.ci.upper};
      },
      [](Estimate& e, const Values& values) {
        e.ci = {values[0], values[1]};
      }));
  return group;
}

RecordGroup control_group(const ProbeIdentity& identity, Ablation ablation, Matched matched) {
  const ProbeSettings& settings = identity.settings;
  const bool by_alpha = matched == Matched::alpha;
  const char* held = by_alpha ? "weight" : "contribution";
  const DocumentDraws draws(settings, identity.tokens);
  RecordGroup group{
      fmt::format("{}/{}", by_alpha ? "control" : "contribution_control", to_string(ablation)),
      estimand(
          identity,
          fmt::format("{}; of random sources, the last one in part, that hold, on average, as much {} as the set "
                      "in each of its reads, instead of the set's own; a read without another choice is as in "
                      "the set",
                      describe(ablation), held),
          fmt::format("{}, mean over the controls of the sequence: all if there are {} or fewer, else {} draws of its "
                      "document's own",
                      delta_metric, most_enumerated_controls, draws.per_document),
          "nat/token"),
      {}};
  add_inference(group.attributes, settings);
  for (auto& [name, value] : group.attributes) {
    if (name == "test" && !settings.until_decided)
      value = "one-sided t tests over documents, corrected for skewness; doubled";
  }
  group.attributes.emplace_back("draws", static_cast<std::int64_t>(draws.per_document * draws.documents));
  group.attributes.emplace_back("draws_per_document", static_cast<std::int64_t>(draws.per_document));
  const SetFields set(identity, ablation);
  const auto control = [by_alpha](auto& effect) -> auto& {
    return by_alpha ? effect.control : effect.contribution_control;
  };
  group.fields = {
      set.number("coverage", "1", "of the reads that the ablation changes, the share where a control can differ",
                 [=](auto& e) { return &control(e).coverage; }),
      set.number("enumerated", "1", "1: all controls were taken, on every sequence",
                 [=](auto& e) { return &control(e).enumerated; }),
      set.number("delta_nll", "nat/token", "effect of the controls", [=](auto& e) { return &control(e).delta_nll; }),
      set.sequences("the same of each sequence", [=](auto& e) { return &control(e).delta_nll_sequence; }),
      set.number("excess", "nat/token", "effect of the set minus that of its controls, paired over sequences",
                 [=](auto& e) { return &control(e).excess.value; }),
      set.interval("excess_ci", "interval of excess", [=](auto& e) { return &control(e).excess; }),
      set.number("excess_p", "1", "two-sided p value of no excess", [=](auto& e) { return &control(e).excess_p; }),
      set.number("excess_p_adjusted", "1", "excess_p, adjusted",
                 [=](auto& e) { return &control(e).excess_p_adjusted; }),
      set.number("overlap", "1", fmt::format("share of the controls' {} that was the set's own", held),
                 [=](auto& e) { return &control(e).overlap; }),
  };
  for (ProbeField& field : group.fields) {
    if (field.path == "enumerated") field.type = data::hdf5::Type::u8;
  }
  return group;
}

namespace {

/// Masses, each with its interval.
void add_writer_masses(std::vector<ProbeField>& fields) {
  const auto add = [&](const std::string& path, const Names& axes, const char* description,
                       std::vector<Estimate> Writers::*member) {
    const auto list = [member](auto& row) { return &(row.writers.*member); };
    fields.push_back(
        list_number(path, axes, "1", description, false, list, [](auto& estimate) { return &estimate.value; }));
    fields.push_back(list_interval(path + "_ci", axes, "1", "interval of " + path, false, list,
                                   [](auto& estimate) { return &estimate; }));
  };
  const Names cells{"reader", "writer"}, each{"writer"};
  add("contribution", cells, "omega_j <y_j, h> / |h|^2; NaN for a writer behind the reader", &Writers::contribution);
  add("norm_mass", cells, "|omega_j y_j| / sum_k |omega_k y_k|; NaN alike", &Writers::norm_mass);
  add("mean_contribution", each, "contribution, mean over the readers behind the writer", &Writers::mean_contribution);
  add("mean_norm_mass", each, "norm_mass, mean over the readers behind the writer", &Writers::mean_norm_mass);
  add("embedding_part", {"read", "source"},
      "of a source's contribution (/contribution_mean) the part that is the embedding's", &Writers::embedding_part);
}

void add_writer_effects(std::vector<ProbeField>& fields, Ablation ablation, std::size_t sequences,
                        std::vector<WriterEffect> Writers::*member) {
  const std::string path = to_string(ablation) + "/";
  const Names each{"writer"};
  const auto list = [member](auto& row) { return &(row.writers.*member); };
  const auto number = [&](const char* name, const char* units, const char* description, const auto& at) {
    fields.push_back(list_number(path + name, each, units, description, false, list, at));
  };
  number("delta_nll", "nat/token", "effect of the ablation; NaN: not tested",
         [](auto& effect) { return &effect.delta_nll.value; });
  fields.push_back(list_interval(path + "delta_nll_ci", each, "nat/token", "interval of delta_nll", false, list,
                                 [](auto& effect) { return &effect.delta_nll; }));
  fields.push_back(list_field(
      path + "delta_nll_sequence", {"writer", "seq"}, "nat/token", "delta_nll of each sequence", sequences, false, list,
      [](const WriterEffect& effect) { return effect.delta_nll_sequence; },
      [](WriterEffect& effect, const Values& values) { effect.delta_nll_sequence = values; }));
  number("p_value", "1", "two-sided p value of no effect", [](auto& effect) { return &effect.p_value; });
  number("p_adjusted", "1", "p_value, adjusted", [](auto& effect) { return &effect.p_adjusted; });
  number("p_equivalence", "1", "p value of an effect of the margin or more, either way",
         [](auto& effect) { return &effect.p_equivalence; });
  number("p_equivalence_adjusted", "1", "p_equivalence, adjusted",
         [](auto& effect) { return &effect.p_equivalence_adjusted; });
}

}  // namespace

RecordGroup writers_group(const ProbeIdentity& identity) {
  RecordGroup group{
      "writers",
      estimand(identity,
               "zero, mean: the output y_j of one sublayer (or the embedding) replaced by 0, or by its mean over the "
               "probe tokens, in every read behind it, at the weights that the read has; keys still hold y_j",
               "masses of y_j in a read h, mean over tokens; omega_j: the read's weights on the sources that hold y_j, "
               "summed (1 in a read that is not routed). Effects: " +
                   std::string(delta_metric),
               "1; effects in nat/token"),
      {},
      [](const ProbeRow& row) { return !row.writers.empty(); }};
  ProbeSettings settings = identity.settings;
  settings.until_decided = false;
  add_inference(group.attributes, settings);
  for (auto& [name, value] : group.attributes)
    if (name == "adjustment") value = "Holm over the writers of a step that were tested";
  group.attributes.emplace_back("mass_interval", fmt::format("{:g} % Student's, over documents", 100 * interval_level));
  group.attributes.emplace_back("margin", settings.margin);
  group.attributes.emplace_back("margin_unit", "share of what was learned: nats a token in /intact/margin");
  add_writer_masses(group.fields);
  const auto sequences = static_cast<std::size_t>(identity.tokens.sequences);
  add_writer_effects(group.fields, Ablation::zero, sequences, &Writers::zero);
  add_writer_effects(group.fields, Ablation::mean, sequences, &Writers::mean);
  const auto number = [&](const char* path, const char* units, const char* description, double Writers::*member) {
    group.fields.push_back(
        data::field_at<ProbeRow>(path, {}, units, description, [member](auto& row) { return &(row.writers.*member); }));
  };
  number("passes", "1", "what it took in plain forward passes, two of them intact", &Writers::passes);
  number("seconds", "s", "what it took", &Writers::seconds);
  return group;
}

}  // namespace routescope::analysis
