#include "analysis/routes/ablation.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "data/base/error.h"

namespace routescope::analysis {
namespace {

struct Named {
  Ablation ablation;
  Donor donor;
  Part part;
  const char* name;
  const char* brief;
  std::string what;
};

std::string of_part(const char* name, const char* what, const char* from) {
  return fmt::format("{}: {} of each of the set's routes, {}", name, what, from);
}

const std::vector<Named>& named() {
  constexpr const char *mean = "with the mean of v_i over all probed tokens under the intact model for v_i",
                       *position = "with v_i of another token of the same sequence, drawn uniformly, for v_i",
                       *text = "with v_i of the same position of the aligned sequence under the intact model for v_i",
                       *value = "the value alpha_i v_i", *key = "the logit, and with it every weight of the read,",
                       *both = "the value alpha_i v_i and the logit";
  static const std::vector<Named> all = {
      {Ablation::mask, Donor::none, Part::weight, "mask", "out of the softmax",
       "mask: logit = -inf on the set's routes, softmax over the rest; a read that would keep no source is left alone"},
      {Ablation::zero, Donor::none, Part::weight, "zero", "term dropped",
       "zero: the term alpha_i v_i of each of the set's routes is removed, the rest unchanged"},
      {Ablation::mean, Donor::mean, Part::value, "mean", "mean value",
       "mean: v_i of each of the set's routes is replaced by its mean over all probed tokens under the intact model, "
       "alpha kept"},
      {Ablation::resample, Donor::position, Part::weight, "resample", "another token's weight",
       "resample: alpha_i of each of the set's routes is that of another token of the same sequence, drawn uniformly; "
       "not renormalised"},
      {Ablation::freeze, Donor::mean, Part::weight, "freeze", "mean weight",
       "freeze: alpha_i of each of the set's routes is its mean over all probed tokens under the intact model; not "
       "renormalised"},
      {Ablation::patch, Donor::text, Part::weight, "patch", "weight under --patch-from",
       "patch: alpha_i of each of the set's routes is that of the same position of the aligned sequence under the "
       "intact model; not renormalised"},
      {Ablation::mean_key, Donor::mean, Part::key, "mean_key", "", of_part("mean_key", key, mean)},
      {Ablation::mean_both, Donor::mean, Part::both, "mean_both", "", of_part("mean_both", both, mean)},
      {Ablation::resample_value, Donor::position, Part::value, "resample_value", "",
       of_part("resample_value", value, position)},
      {Ablation::resample_key, Donor::position, Part::key, "resample_key", "", of_part("resample_key", key, position)},
      {Ablation::resample_both, Donor::position, Part::both, "resample_both", "",
       of_part("resample_both", both, position)},
      {Ablation::patch_value, Donor::text, Part::value, "patch_value", "", of_part("patch_value", value, text)},
      {Ablation::patch_key, Donor::text, Part::key, "patch_key", "", of_part("patch_key", key, text)},
      {Ablation::patch_both, Donor::text, Part::both, "patch_both", "", of_part("patch_both", both, text)},
  };
  return all;
}

const Named& entry(Ablation ablation) {
  return *std::find_if(named().begin(), named().end(), [&](const Named& one) { return one.ablation == ablation; });
}

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

bool can_change(const model::ReadPlan& plan, Ablation ablation, int read, std::span<const GatedRoute> routes) {
  const std::size_t sources = plan.reads[index(read)].columns.size();
  if (ablation == Ablation::mask)
    return routes.size() < sources ||
           std::any_of(routes.begin(), routes.end(), [](const GatedRoute& route) { return route.share < 1; });
  return sources > 1 || ablation == Ablation::zero || changes_values(ablation);
}

}  // namespace

std::string to_string(Ablation ablation) {
  return entry(ablation).name;
}

Ablation ablation_from_string(const std::string& text) {
  std::string known;
  for (const Named& one : named()) {
    if (text == one.name) return one.ablation;
    known += std::string(known.empty() ? "" : ", ") + one.name;
  }
  throw data::UsageError("ablation: found '{}', expected one of {}", text, known);
}

std::string describe(Ablation ablation) {
  return entry(ablation).what;
}

std::string describe_briefly(Ablation ablation) {
  return entry(ablation).brief;
}

std::vector<Ablation> all_ablations() {
  std::vector<Ablation> all;
  for (const Named& one : named()) all.push_back(one.ablation);
  return all;
}

std::vector<Ablation> whole_ablations() {
  std::vector<Ablation> whole = all_ablations();
  std::erase_if(whole, [](Ablation one) { return one > Ablation::patch; });
  return whole;
}

Part part_of(Ablation ablation) {
  return entry(ablation).part;
}

Donor donor_of(Ablation ablation) {
  return entry(ablation).donor;
}

Ablation with_part(Ablation ablation, Part part) {
  for (const Named& one : named()) {
    if (one.part == part && one.donor == donor_of(ablation) && ablation != Ablation::freeze && part != Part::weight)
      return one.ablation;
  }
  throw data::UsageError("--part: found the ablation {}, expected mean, resample or patch", to_string(ablation));
}

Part part_from_string(const std::string& text) {
  if (text == "value") return Part::value;
  if (text == "key") return Part::key;
  if (text == "both") return Part::both;
  throw data::UsageError("--part: found '{}', expected value, key or both", text);
}

bool changes_values(Ablation ablation) {
  return part_of(ablation) == Part::value || part_of(ablation) == Part::both;
}

bool changes_keys(Ablation ablation) {
  return part_of(ablation) == Part::key || part_of(ablation) == Part::both;
}

std::vector<int> changed_reads(const model::ReadPlan& plan, Ablation ablation, std::span<const GatedRoute> routes) {
  std::vector<int> reads;
  for_each_read(routes, [&](int read, std::span<const GatedRoute> of_read) {
    if (can_change(plan, ablation, read, of_read)) reads.push_back(read);
  });
  return reads;
}

double coverage(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set) {
  if (set.reads.empty()) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(changed_reads(plan, ablation, whole(set)).size()) / static_cast<double>(set.reads.size());
}

std::vector<GatedRoute> whole(const RouteSet& set) {
  std::vector<GatedRoute> routes;
  for (const auto& [read, column] : set.routes) routes.push_back({read, column, 1.0});
  return routes;
}

}  // namespace routescope::analysis
