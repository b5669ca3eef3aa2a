#include "analysis/record/record_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "analysis/record/record_fields.h"

namespace routescope::analysis {
namespace {

using Names = std::vector<std::string>;
using Values = std::vector<double>;
template <class Row>
using Fields = std::vector<data::RowField<Row>>;

/// A group with its estimand. Findings have intervals from bootstrap resamples, unless `intervals` is false.
data::hdf5::Group make_group(data::hdf5::Group& file, const std::string& path, const RecordAttributes& attributes,
                             bool intervals = true) {
  data::hdf5::Group group = file.create_group(path);
  set_attributes(group, attributes);
  if (intervals) {
    group.set("interval", fmt::format("{:g} % percentiles of {} bootstrap resamples of the documents, pointwise",
                                      100 * interval_level, findings_resamples));
  }
  return group;
}

/// Adds the field of estimates, and that of their intervals. at(row): the estimates, along `axes`.
template <class Row, class At>
void add_estimates(Fields<Row>& fields, const std::string& path, Names axes, const std::string& units,
                   const std::string& description, const At& at) {
  fields.push_back({{path, axes, units, description}, [at](const Row& row) {
                      Values out;
                      for (const Estimate& one : at(row)) out.push_back(one.value);
                      return out;
                    }});
  axes.emplace_back("bound");
  fields.push_back({{path + "_ci", axes, units, "interval of " + path}, [at](const Row& row) {
                      Values out;
                      for (const Estimate& one : at(row)) out.insert(out.end(), {one.ci.lower, one.ci.upper});
                      return out;
                    }});
}

Fields<Learned> learned_fields() {
  using Row = Learned;
  Fields<Row> fields;
  add_estimates(fields, "gain", {}, "nat/token", "nll at step 0 minus nll; NaN without a row of step 0",
                [](const Row& row) { return std::vector{row.gain}; });
  fields.push_back(data::field_of("p", {}, "1", "one-sided p value of a gain of at most by_chance", &Row::p));
  fields.push_back(
      data::field_of("by_chance", {}, "nat/token", "largest |delta_nll| of a set at step 0", &Row::by_chance));
  fields.push_back(data::field_of("margin", {}, "nat/token", "what counts as no effect", &Row::margin));
  fields.push_back(data::field_of("effect_share", {"slice"}, "1", "delta_nll over gain; NaN where no gain is shown",
                                  &Row::effect_share));
  return fields;
}

/// Of one mass: its datasets end with its name, but for alpha where that is the plain one.
void add_mass_fields(Fields<Dissociation>& fields, MassKind kind, std::size_t slices) {
  using Row = Dissociation;
  const std::string end = kind == MassKind::alpha ? "" : "_" + to_string(kind);
  const std::string what = kind == MassKind::alpha ? "free mass" : "free contribution";
  const auto number = [&](const std::string& path, Names axes, const std::string& description, const auto& at) {
    fields.push_back({{path + end, std::move(axes), "1", description},
                      [kind, at](const Row& row) { return Values(at(row.of(kind))); }});
  };
  number(kind == MassKind::alpha ? "free_mass" : "free", {"slice"},
         what + ": mean over the reads that the ablation can change; NaN: not tested",
         [](const MassAgainstEffect& one) { return one.free_mass; });
  number("rank_correlation", {}, "Spearman's rank correlation of " + what + " and delta_nll",
         [](const MassAgainstEffect& one) { return Values{one.rank_correlation}; });
  const auto concordance_fields = [&](const std::string& path, const std::string& pairs,
                                      Concordance MassAgainstEffect::*member, bool interval) {
    const std::string text = "Kendall's tau of " + what + " and effect over " + pairs;
    number("tau" + path, {}, text, [member](const MassAgainstEffect& one) { return Values{(one.*member).tau}; });
    if (interval)
      fields.push_back(
          {{"tau" + path + end + "_ci", {"bound"}, "1", "its interval: orders that are not shown may be either"},
           [kind, member](const Row& row) {
             const Interval& ci = (row.of(kind).*member).ci;
             return Values{ci.lower, ci.upper};
           }});
    number("tau" + path + "_p", {}, "two-sided permutation p value of no association",
           [member](const MassAgainstEffect& one) { return Values{(one.*member).p}; });
  };
  concordance_fields("", "all pairs of tested slices", &MassAgainstEffect::over, true);
  concordance_fields("_within", "pairs of slices of one sublayer kind and depth", &MassAgainstEffect::within, true);
  concordance_fields("_within_reads", "pairs of routes of one read that the atlas masked",
                     &MassAgainstEffect::within_reads, false);
  fields.push_back(
      {{"idle" + end,
        {"slice"},
        "1",
        fmt::format(
            "1: {} of at least {:g}, and an effect shown to lie within the margin in more than {:g} % of documents",
            what, appreciable_mass, 100 * idle_share),
        data::hdf5::Type::u8},
       [kind, slices](const Row& row) {
         Values out(slices, 0);
         for (int slice : row.of(kind).idle) out[static_cast<std::size_t>(slice)] = 1;
         return out;
       }});
}

Fields<Dissociation> dissociation_fields(std::size_t slices) {
  using Row = Dissociation;
  Fields<Row> fields;
  for (MassKind kind : mass_kinds) add_mass_fields(fields, kind, slices);
  fields.push_back(data::field_of("largest_mass", {}, "1", "slice with the largest free mass of those tested; -1: none",
                                  &Row::largest_mass));
  fields.push_back(
      data::field_of("largest_effect", {}, "1", "slice with the largest delta_nll; -1: none", &Row::largest_effect));
  const auto of_contest = [&](const std::string& path, const std::string& description, data::hdf5::Type type,
                              const auto& at) {
    fields.push_back({{path, {"contest"}, "1", description, type}, [at](const Row& row) {
                        Values out;
                        for (const Contest& contest : row.contests) out.push_back(static_cast<double>(at(contest)));
                        return out;
                      }});
  };
  of_contest("heaviest", "slice, or family (0 embedding, 1 history, 2 current), with the largest mass; -1: none",
             data::hdf5::Type::i32, [](const Contest& contest) { return contest.heaviest; });
  of_contest("strongest", "the one with the largest effect", data::hdf5::Type::i32,
             [](const Contest& contest) { return contest.strongest; });
  of_contest("p",
             "p value of the hypothesis that nothing has a larger effect, by the margin, than what may be the heaviest",
             data::hdf5::Type::f64, [](const Contest& contest) { return contest.p; });
  of_contest("p_adjusted", "p after Holm's adjustment over the contests of the step", data::hdf5::Type::f64,
             [](const Contest& contest) { return contest.p_adjusted; });
  of_contest("p_alone", "p_adjusted without regard to step 0 and to what was learned", data::hdf5::Type::f64,
             [](const Contest& contest) { return contest.p_alone; });
  return fields;
}

Fields<Motif> motif_fields() {
  Fields<Motif> fields;
  const auto curve = [&](const std::string& path, const std::string& units, const std::string& description,
                         std::vector<Estimate> Motif::*member) {
    add_estimates(fields, path, {"step"}, units, description, [member](const Motif& motif) { return motif.*member; });
  };
  const auto estimate = [&](const std::string& path, const std::string& description, Estimate Motif::*member) {
    add_estimates(fields, path, {}, "1", description,
                  [member](const Motif& motif) { return std::vector{motif.*member}; });
  };
  curve("effect", "nat/token", "effect of the ablation", &Motif::effect);
  curve("control", "nat/token", "effect of the matched controls", &Motif::control);
  curve("excess", "nat/token", "effect minus control", &Motif::excess);
  curve("contribution_excess", "nat/token", "effect minus the controls of the same contribution",
        &Motif::contribution_excess);
  curve("change", "nat/token", "excess minus that at step 0", &Motif::change);
  curve("mass", "1", "routing mass", &Motif::mass);
  curve("contribution", "1", "contribution", &Motif::contribution);
  const auto test = [&](const std::string& path, const std::string& hypothesis, double MotifTests::*member) {
    fields.push_back({{path, {"step"}, "1", "one-sided p value: " + hypothesis}, [member](const Motif& motif) {
                        Values out;
                        for (const MotifTests& tests : motif.tests) out.push_back(tests.*member);
                        return out;
                      }});
  };
  test("p_excess", "no excess of more than the margin", &MotifTests::excess);
  test("p_contribution_excess", "the same of controls of the same contribution", &MotifTests::contribution_excess);
  test("p_change", "the excess is not more than at step 0 by the margin", &MotifTests::change);
  test("p_localised",
       "the effect is not more, by the margin, than that of each slice of the same sublayer kind and depth",
       &MotifTests::localised);
  fields.push_back(data::field_of("p", {"step"}, "1",
                                  "the largest of these and of /learned/p, after Holm's adjustment over the motifs",
                                  &Motif::p));
  fields.push_back(data::field_of(
      "uniform_mass", {}, "1", "the mass where training starts: queries zero, the current source at its initial bias",
      &Motif::uniform_mass));
  fields.push_back(data::field_of(
      "shown_from", {}, "1", "first step from which on, to the last, p is below 0.05; NaN: never", &Motif::shown_from));
  estimate("onset",
           "step at which a step from 0 to the last row's excess fits the excess best, interpolated between the rows "
           "around it; NaN: the motif is not shown at the last row",
           &Motif::onset);
  estimate("mass_onset", "the same of the mass above uniform_mass", &Motif::mass_onset);
  estimate("lead", "ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first", &Motif::lead);
  return fields;
}

Fields<Content> content_fields() {
  return {data::field_of("share", {"read"}, "1", "share of the read's variance; NaN where it has one source",
                         &Content::share),
          data::field_of("mean_share", {}, "1", "mean over the reads with more than one source", &Content::mean_share)};
}

/// Of one donor; a row that lacks it has NaN.
void write_interaction(data::hdf5::Group& file, const ProbeIdentity& identity, const Findings& findings, Donor donor,
                       const data::AxisLengths& axes) {
  std::vector<PartInteraction> rows;
  bool measured = false;
  for (const std::vector<PartInteraction>& of_row : findings.interactions) {
    const auto found = std::find_if(of_row.begin(), of_row.end(), [&](const auto& one) { return one.donor == donor; });
    measured = measured || found != of_row.end();
    const Values missing(identity.sets.size(), nan);
    rows.push_back(found != of_row.end()
                       ? *found
                       : PartInteraction{donor, std::vector<Estimate>(missing.size()), missing, missing});
  }
  if (!measured) return;
  const std::string name = parts_name(donor);
  data::hdf5::Group group =
      make_group(file, "interaction/" + name,
                 estimand(identity, "both parts of " + name + ", its value alone and its key alone",
                          "effect of both parts minus that of the value minus that of the key", "nat/token"),
                 false);
  group.set("interval", fmt::format("{:g} % interval of Student's t over documents{}", 100 * interval_level,
                                    findings.runs > 1 ? " and runs" : ""));
  group.set("test", "one-sided t tests over documents, corrected for skewness; doubled");
  group.set("adjustment", "Holm over the sets of a step");
  Fields<PartInteraction> fields;
  add_estimates(fields, "delta_nll", {"slice"}, "nat/token", "what both parts do beyond the sum of either",
                [](const PartInteraction& row) { return row.delta_nll; });
  fields.push_back(data::field_of("p_value", {"slice"}, "1", "two-sided p value of 0", &PartInteraction::p_value));
  fields.push_back(data::field_of("p_adjusted", {"slice"}, "1", "p_value, adjusted", &PartInteraction::p_adjusted));
  data::write_fields<PartInteraction>(group, fields, rows, axes, "step");
}

void write_motif(data::hdf5::Group& file, const ProbeIdentity& identity, const Motif& motif,
                 const data::AxisLengths& axes) {
  data::hdf5::Group group = make_group(
      file, "motif/" + motif.name,
      estimand(identity, describe(identity.settings.ablations.front()),
               "delta_nll summed over the motif's slices (those that were tested); mass: mean over them", "nat/token"));
  std::string slices;
  for (int slice : motif.slices) {
    slices += (slices.empty() ? "" : " ") + identity.sets[static_cast<std::size_t>(slice)];
  }
  group.set("slices", slices);
  group.set("of_paper", motif.of_paper ? 1 : 0);
  data::write_fields<Motif>(group, motif_fields(), {&motif, 1}, axes);
}

}  // namespace

void write_findings(data::hdf5::Group& file, const ProbeIdentity& identity, const Findings& findings) {
  data::AxisLengths axes = record_axes(identity);
  axes["step"] = std::ssize(findings.step);
  if (!findings.learned.empty()) {
    data::hdf5::Group group = make_group(
        file, "learned", estimand(identity, "none", "nll at step 0 minus nll, on the same tokens", "nat/token"), false);
    group.set("interval", fmt::format("{:g} % interval of Student's t over documents{}", 100 * interval_level,
                                      findings.runs > 1 ? " and runs" : ""));
    data::write_fields<Learned>(group, learned_fields(), findings.learned, axes, "step");
  }
  for (Donor donor : {Donor::mean, Donor::position, Donor::text})
    write_interaction(file, identity, findings, donor, axes);
  if (!findings.dissociation.empty()) {
    data::hdf5::Group group = make_group(
        file, "dissociation",
        estimand(identity, describe(identity.settings.ablations.front()),
                 "mass of a slice over the reads that the ablation can change, against its delta_nll, over the slices "
                 "that were tested",
                 "1"),
        false);
    axes["contest"] = num_contests;
    Names contests;
    for (std::size_t c = 0; c < num_contests; ++c) contests.push_back(to_string(contest_name(c)));
    group.write("contest", contests,
                {.description = "sublayer kind, items and mass of which the heaviest meets the strongest",
                 .axes = {"contest"}});
    group.set("near_tie", near_tie);
    group.set("idle_share", idle_share);
    data::write_fields<Dissociation>(group, dissociation_fields(identity.sets.size()), findings.dissociation, axes,
                                     "step");
  }
  for (const Motif& motif : findings.motifs) write_motif(file, identity, motif, axes);
  if (!findings.content.empty()) {
    data::hdf5::Group group = make_group(file, "content",
                                         estimand(identity, "none",
                                                  "of alpha's variance over tokens and sources of a read, the share "
                                                  "that lies between tokens for a given source",
                                                  "1"),
                                         false);
    data::write_fields<Content>(group, content_fields(), findings.content, axes, "step");
  }
}

}  // namespace routescope::analysis
