#include "analysis/record/record_findings.h"

#include <fmt/format.h>

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
    group.set("interval", fmt::format("{:g} % percentiles of {} bootstrap resamples of the sequences, pointwise",
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

Fields<Dissociation> dissociation_fields(std::size_t slices) {
  using Row = Dissociation;
  Fields<Row> fields;
  fields.push_back(data::field_of("free_mass", {"slice"}, "1",
                                  "mean weight over the reads that the ablation can change; NaN: not tested",
                                  &Row::free_mass));
  add_estimates(fields, "rank_correlation", {}, "1", "Spearman's rank correlation of free mass and delta_nll",
                [](const Row& row) { return std::vector{row.rank_correlation}; });
  fields.push_back(data::field_of("largest_mass", {}, "1", "slice with the largest free mass of those tested; -1: none",
                                  &Row::largest_mass));
  fields.push_back(
      data::field_of("largest_effect", {}, "1", "slice with the largest delta_nll; -1: none", &Row::largest_effect));
  fields.push_back(data::field_of("p_same", {}, "1",
                                  "share of resamples in which the two are the same slice (no p value)", &Row::p_same));
  fields.push_back(
      data::field_of("p_largest", {}, "1",
                     "p value of the hypothesis that no slice has a larger effect than that with the largest free mass",
                     &Row::p_largest));
  fields.push_back(
      {{"idle",
        {"slice"},
        "1",
        fmt::format("1: free mass of at least {:g} and an effect shown to lie within the margin", appreciable_mass),
        data::hdf5::Type::u8},
       [slices](const Row& row) {
         Values out(slices, 0);
         for (int slice : row.idle) out[static_cast<std::size_t>(slice)] = 1;
         return out;
       }});
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
  curve("mass", "1", "routing mass", &Motif::mass);
  fields.push_back(data::field_of(
      "uniform_mass", {}, "1", "the mass where training starts: queries zero, the current source at its initial bias",
      &Motif::uniform_mass));
  fields.push_back(data::field_of(
      "shown_from", {}, "1", "first step from which on, to the last, the excess is shown to be above zero; NaN: never",
      &Motif::shown_from));
  estimate("onset",
           "step of the row at which a step from 0 to the last row's excess fits the excess best; NaN: not shown there",
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
  if (!findings.dissociation.empty()) {
    data::hdf5::Group group = make_group(
        file, "dissociation",
        estimand(identity, describe(identity.settings.ablations.front()),
                 "mass of a slice over the reads that the ablation can change, against its delta_nll, over the slices "
                 "that were tested",
                 "1"));
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
