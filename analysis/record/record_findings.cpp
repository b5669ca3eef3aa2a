// What follows from the rows of analysis.h5 (findings.h), for readers of the file. It is derived anew whenever the file
// is written, and never read back.
#include <fmt/format.h>

#include <cmath>

#include "analysis/findings/findings.h"
#include "analysis/record/record_fields.h"

namespace routescope::analysis {
namespace {

using Values = std::vector<double>;

/// A group, and the datasets [step, ...] or scalars that it gets.
class FindingsGroup {
 public:
  FindingsGroup(data::hdf5::Group& file, const std::string& path, const RecordAttributes& attributes,
                bool intervals = true)
      : group_(file.create_group(path)) {
    for (const auto& [name, value] : attributes)
      std::visit([&, &key = name](const auto& one) { group_.set(key, one); }, value);
    if (!intervals) return;
    group_.set("interval", fmt::format("{:g} % percentiles of {} bootstrap resamples of the sequences, pointwise",
                                       100 * interval_level, findings_resamples));
  }

  data::hdf5::Group& group() { return group_; }
  void rows(const std::string& name, const Values& values, const std::string& units, const std::string& description) {
    group_.write(name, values, {std::ssize(values)}, {.units = units, .description = description, .axes = {"step"}});
  }
  void rows(const std::string& name, const std::vector<Estimate>& estimates, const std::string& units,
            const std::string& description) {
    Values values, bounds;
    for (const Estimate& one : estimates) {
      values.push_back(one.value);
      bounds.insert(bounds.end(), {one.ci.lower, one.ci.upper});
    }
    rows(name, values, units, description);
    group_.write(name + "_ci", bounds, {std::ssize(values), 2},
                 {.units = units, .description = "interval of " + name, .axes = {"step", "bound"}});
  }
  void number(const std::string& name, double value, const std::string& units, const std::string& description) {
    group_.write(name, Values{value}, {}, {.units = units, .description = description});
  }
  void number(const std::string& name, const Estimate& one, const std::string& units, const std::string& description) {
    number(name, one.value, units, description);
    group_.write(name + "_ci", Values{one.ci.lower, one.ci.upper}, {2},
                 {.units = units, .description = "interval of " + name, .axes = {"bound"}});
  }

 private:
  data::hdf5::Group group_;
};

void write_dissociation(data::hdf5::Group& file, const ProbeIdentity& identity, const std::vector<Dissociation>& rows) {
  FindingsGroup out(
      file, "dissociation",
      estimand(identity, describe(identity.settings.ablations.front()),
               "mass of a slice over the reads that the ablation can change, against its delta_nll, over the slices "
               "that were tested",
               "1"));
  std::vector<Estimate> correlation;
  std::vector<std::int32_t> largest_mass, largest_effect;
  Values same, largest;
  const std::size_t slices = identity.sets.size();
  std::vector<std::uint8_t> idle(rows.size() * slices, 0);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    correlation.push_back(rows[r].rank_correlation);
    largest_mass.push_back(rows[r].largest_mass);
    largest_effect.push_back(rows[r].largest_effect);
    same.push_back(rows[r].p_same);
    largest.push_back(rows[r].p_largest);
    for (int slice : rows[r].idle) idle[r * slices + static_cast<std::size_t>(slice)] = 1;
  }
  out.rows("rank_correlation", correlation, "1", "Spearman's rank correlation of mass and delta_nll");
  const data::hdf5::Shape shape{std::ssize(rows)};
  out.group().write(
      "largest_mass", largest_mass, shape,
      {.units = "1", .description = "slice with the largest mass of those tested; -1: none", .axes = {"step"}});
  out.group().write("largest_effect", largest_effect, shape,
                    {.units = "1", .description = "slice with the largest delta_nll; -1: none", .axes = {"step"}});
  out.rows("p_same", same, "1", "share of resamples in which the two are the same slice (no p value)");
  out.rows("p_largest", largest, "1",
           "p value of the hypothesis that no slice has a larger effect than that with the largest mass");
  out.group().write("idle", idle, {std::ssize(rows), std::ssize(identity.sets)},
                    {.units = "1",
                     .description = fmt::format("1: mass of at least {:g} and an effect shown to lie within the margin",
                                                appreciable_mass),
                     .axes = {"step", "slice"}});
}

void write_motif(data::hdf5::Group& file, const ProbeIdentity& identity, const Motif& motif) {
  FindingsGroup out(
      file, "motif/" + motif.name,
      estimand(identity, describe(identity.settings.ablations.front()),
               "delta_nll summed over the motif's slices (those that were tested); mass: mean over them", "nat/token"));
  std::string slices;
  for (int slice : motif.slices) {
    slices += (slices.empty() ? "" : " ") + identity.sets[static_cast<std::size_t>(slice)];
  }
  out.group().set("slices", slices);
  out.group().set("of_paper", motif.of_paper ? 1 : 0);
  out.rows("effect", motif.effect, "nat/token", "effect of the ablation");
  out.rows("control", motif.control, "nat/token", "effect of the matched controls");
  out.rows("excess", motif.excess, "nat/token", "effect minus control");
  out.rows("mass", motif.mass, "1", "routing mass");
  out.number("uniform_mass", motif.uniform_mass, "1",
             "the mass where training starts: queries zero, the current source at its initial bias");
  out.number("shown_from", motif.shown_from, "1",
             "first step from which on, to the last, the excess is shown to be above zero; NaN: never");
  out.number(
      "onset", motif.onset, "1",
      "step of the row at which a step from 0 to the last row's excess fits the excess best; NaN: not shown there");
  out.number("mass_onset", motif.mass_onset, "1", "the same of the mass above uniform_mass");
  out.number("lead", motif.lead, "1", "ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first");
}

void write_content(data::hdf5::Group& file, const ProbeIdentity& identity, const std::vector<Content>& rows) {
  FindingsGroup out(file, "content",
                    estimand(identity, "none",
                             "of alpha's variance over tokens and sources of a read, the share that lies between "
                             "tokens for a given source",
                             "1"),
                    false);
  Values share, mean_share;
  std::int64_t reads = 0;
  for (const Content& row : rows) {
    reads = std::ssize(row.share);
    share.insert(share.end(), row.share.begin(), row.share.end());
    mean_share.push_back(row.mean_share);
  }
  out.group().write("share", share, {std::ssize(rows), reads},
                    {.units = "1",
                     .description = "share of the read's variance; NaN where it has one source",
                     .axes = {"step", "read"}});
  out.rows("mean_share", mean_share, "1", "mean over the reads with more than one source");
}

}  // namespace

void write_findings(data::hdf5::Group& file, const ProbeIdentity& identity, const Findings& findings) {
  if (!findings.dissociation.empty()) write_dissociation(file, identity, findings.dissociation);
  for (const Motif& motif : findings.motifs) write_motif(file, identity, motif);
  if (!findings.content.empty()) write_content(file, identity, findings.content);
}

}  // namespace routescope::analysis
