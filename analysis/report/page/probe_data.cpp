#include "analysis/report/page/probe_data.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "analysis/report/page/values.h"
#include "analysis/report/wording.h"
#include "analysis/routes/free_mass.h"
#include "analysis/routes/route_sets.h"

namespace routescope::analysis {

using nlohmann::json;

namespace {

/// Where a record has each of the page's sets; -1: nowhere.
using Places = std::vector<std::ptrdiff_t>;
using Indices = std::vector<std::size_t>;

Places places_of(const std::vector<std::string>& sets, const std::vector<std::string>& own) {
  Places out;
  for (const std::string& name : sets) {
    const auto found = std::find(own.begin(), own.end(), name);
    out.push_back(found == own.end() ? -1 : found - own.begin());
  }
  return out;
}

/// value(item) of the items that a record has for its sets.
template <class Item, class Value>
json placed(const std::vector<Item>& items, const Places& places, const Value& value) {
  json out = json::array();
  for (std::ptrdiff_t at : places)
    out.push_back(at < 0 || at >= std::ssize(items) ? json() : json_number(value(items[static_cast<std::size_t>(at)])));
  return out;
}

json effects_data(const AnalysisRecord& record, Ablation ablation, const Places& places, const Indices& rows) {
  using Value = double (*)(const SetEffect&);
  static const std::vector<std::pair<const char*, Value>> fields = {
      {"delta", [](const SetEffect& e) { return e.delta_nll.value; }},
      {"lower", [](const SetEffect& e) { return e.delta_nll.ci.lower; }},
      {"upper", [](const SetEffect& e) { return e.delta_nll.ci.upper; }},
      {"p", [](const SetEffect& e) { return e.p_adjusted; }},
      {"absent", [](const SetEffect& e) { return e.p_equivalence_adjusted; }},
      {"kl", [](const SetEffect& e) { return e.kl; }},
      {"top1", [](const SetEffect& e) { return e.top1_agreement; }},
      {"coverage", [](const SetEffect& e) { return e.coverage; }},
      {"control", [](const SetEffect& e) { return e.control.delta_nll; }},
      {"excess", [](const SetEffect& e) { return e.control.excess.value; }},
      {"excess_lower", [](const SetEffect& e) { return e.control.excess.ci.lower; }},
      {"excess_upper", [](const SetEffect& e) { return e.control.excess.ci.upper; }},
      {"excess_p", [](const SetEffect& e) { return e.control.excess_p_adjusted; }},
      {"overlap", [](const SetEffect& e) { return e.control.overlap; }},
      {"used", [](const SetEffect& e) { return e.sequences_used; }},
      {"decision", [](const SetEffect& e) { return static_cast<double>(e.decision); }},
  };
  static const std::vector<std::pair<const char*, Value>> ways = {
      {"frozen", [](const SetEffect& e) { return e.frozen.delta_nll.value; }},
      {"frozen_lower", [](const SetEffect& e) { return e.frozen.delta_nll.ci.lower; }},
      {"frozen_upper", [](const SetEffect& e) { return e.frozen.delta_nll.ci.upper; }},
      {"repaired_p", [](const SetEffect& e) { return e.frozen.p_adjusted; }},
      {"share", [](const SetEffect& e) { return e.frozen.share.value; }},
      {"share_lower", [](const SetEffect& e) { return e.frozen.share.ci.lower; }},
      {"share_upper", [](const SetEffect& e) { return e.frozen.share.ci.upper; }},
      {"direct", [](const SetEffect& e) { return e.direct.delta_nll.value; }},
      {"direct_lower", [](const SetEffect& e) { return e.direct.delta_nll.ci.lower; }},
      {"direct_upper", [](const SetEffect& e) { return e.direct.delta_nll.ci.upper; }},
  };
  std::vector<std::pair<const char*, Value>> all = fields;
  for (const auto& [name, value] : ways) {
    const bool direct = std::string_view(name).starts_with("direct");
    if (direct ? record.identity.settings.direct : record.identity.settings.frozen) all.emplace_back(name, value);
  }
  json out = json::object();
  for (const auto& [name, value] : all) {
    json values = json::array();
    for (std::size_t row : rows) values.push_back(placed(record.rows[row].effects(ablation).sets, places, value));
    out[name] = std::move(values);
  }
  if (!record.identity.settings.frozen) return out;
  for (std::size_t row : rows)
    out["repaired_all"].push_back(json_estimate(record.rows[row].effects(ablation).repaired_share));
  return out;
}

/// The motifs of one run: thin lines beside pooled ones, and their last excess.
json own_motifs(const Findings& findings, const Indices& rows) {
  json out = json::array();
  for (const Motif& motif : findings.motifs) {
    json effect = json::array(), mass = json::array();
    for (std::size_t row : rows) {
      effect.push_back(json_number(motif.effect.at(row).value));
      mass.push_back(json_number(motif.mass.at(row).value));
    }
    out.push_back({{"name", motif.name},
                   {"title", slices_text(motif.slices)},
                   {"of_paper", motif.of_paper},
                   {"effect", effect},
                   {"mass", mass},
                   {"excess", motif.excess.empty() ? json() : json_estimate(motif.excess.back())},
                   {"onset", json_steps(motif.onset)},
                   {"mass_onset", json_steps(motif.mass_onset)}});
  }
  return out;
}

/// A mass of each of the page's sets, by row; null where no row has it (a file of an older version).
json masses_data(const AnalysisRecord& record, const Places& places, const Indices& rows,
                 std::vector<double> ProbeRow::*masses) {
  json out = json::array();
  bool any = false;
  for (std::size_t row : rows) {
    const std::vector<double>& of_row = record.rows[row].*masses;
    any = any || std::any_of(of_row.begin(), of_row.end(), [](double mass) { return std::isfinite(mass); });
    out.push_back(placed(of_row, places, std::identity{}));
  }
  return any ? out : json();
}

/// Of each of the page's sets [slope, offset]: free mass = slope mass + offset, under the first ablation.
json free_data(const ProbeIdentity& identity, const Places& places) {
  json out = json::array();
  if (identity.settings.ablations.empty()) return out;
  const model::ReadPlan plan = identity.plan();
  const std::vector<RouteSet> sets = route_sets(identity.settings.sets, plan);
  for (std::ptrdiff_t at : places) {
    out.push_back(json());
    if (at < 0) continue;
    const FreeMass free(plan, identity.settings.ablations.front(), sets[static_cast<std::size_t>(at)]);
    if (free.changed > 0) out.back() = {free.of(1) - free.of(0), free.of(0)};
  }
  return out;
}

json cost_data(const ProbeCost& cost) {
  return {{"plain", json_number(cost.plain)},       {"computed", json_number(cost.computed)},
          {"unshared", json_number(cost.unshared)}, {"undecided", json_number(cost.undecided)},
          {"seconds", json_number(cost.seconds)},   {"plain_seconds", json_number(cost.plain_seconds)}};
}

json columns(const std::vector<Estimate>& rows) {
  json value = json::array(), lower = json::array(), upper = json::array();
  for (const Estimate& row : rows) {
    value.push_back(json_number(row.value));
    lower.push_back(json_number(row.ci.lower));
    upper.push_back(json_number(row.ci.upper));
  }
  return json{{"value", value}, {"lower", lower}, {"upper", upper}};
}

}  // namespace

json dissociation_data(const Findings& findings, const Indices& rows) {
  json out = json::array();
  if (findings.dissociation.empty()) return out;
  for (std::size_t row : rows) {
    const Dissociation& one = findings.dissociation.at(row);
    json by_mass = json::object(), contests = json::array();
    for (MassKind kind : mass_kinds) {
      const MassAgainstEffect& of = one.of(kind);
      by_mass[to_string(kind)] = {{"free", json_numbers(of.free_mass)},
                                  {"rank_correlation", json_number(of.rank_correlation)},
                                  {"tau", json_estimate({of.over.tau, of.over.ci})},
                                  {"within", json_estimate({of.within.tau, of.within.ci})},
                                  {"within_p", json_number(of.within.p)},
                                  {"idle", of.idle}};
    }
    for (std::size_t c = 0; c < num_contests; ++c)
      contests.push_back({{"name", to_string(contest_name(c))},
                          {"heaviest", one.contests[c].heaviest},
                          {"strongest", one.contests[c].strongest},
                          {"p", json_number(one.contests[c].p_adjusted)}});
    out.push_back({{"free_mass", json_numbers(one.of(MassKind::alpha).free_mass)},
                   {"by_mass", by_mass},
                   {"contests", contests},
                   {"largest_mass", one.largest_mass},
                   {"largest_effect", one.largest_effect},
                   {"idle", one.of(MassKind::alpha).idle}});
  }
  return out;
}

json interactions_data(const Findings& findings, const std::vector<std::string>& sets,
                       const std::vector<std::string>& own, const Indices& rows) {
  const Places places = places_of(sets, own);
  json out = json::object();
  if (findings.interactions.empty()) return out;
  for (const PartInteraction& last : findings.interactions.back()) {
    json& of_donor = out[parts_name(last.donor)];
    for (std::size_t row : rows) {
      const auto& all = findings.interactions.at(row);
      const auto found = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.donor == last.donor; });
      const PartInteraction& parts = found == all.end() ? PartInteraction{} : *found;
      of_donor["delta"].push_back(placed(parts.delta_nll, places, [](const Estimate& e) { return e.value; }));
      of_donor["lower"].push_back(placed(parts.delta_nll, places, [](const Estimate& e) { return e.ci.lower; }));
      of_donor["upper"].push_back(placed(parts.delta_nll, places, [](const Estimate& e) { return e.ci.upper; }));
      of_donor["p"].push_back(placed(parts.p_adjusted, places, std::identity{}));
    }
  }
  return out;
}

json probes_data(const std::string& name, const AnalysisRecord& record, const Findings& findings,
                 const std::vector<std::string>& sets, std::size_t most_rows) {
  const ProbeIdentity& identity = record.identity;
  const Places places = places_of(sets, identity.sets);
  const Indices rows = thinned(record.rows.size(), most_rows);
  json step = json::array(), nll = json::array(), cost = json::array();
  json share = json::array(), read_share = json::array();
  for (std::size_t at : rows) {
    const ProbeRow& row = record.rows[at];
    step.push_back(row.step);
    nll.push_back(json_number(row.intact_nll));
    cost.push_back(cost_data(row.cost));
    share.push_back(json_number(findings.content.at(at).mean_share));
    read_share.push_back(json_numbers(findings.content.at(at).share));
  }
  json order = json::array(), effects = json::object();
  for (const AblationEffects& one : record.rows.front().ablations) {
    order.push_back(to_string(one.ablation));
    effects[to_string(one.ablation)] = effects_data(record, one.ablation, places, rows);
  }
  return {{"name", name},
          {"sequences", identity.tokens.sequences},
          {"positions", identity.tokens.positions},
          {"margin", json_number(record.rows.back().margin)},
          {"until_decided", identity.settings.until_decided},
          {"controls", identity.settings.controls},
          {"step", step},
          {"nll", nll},
          {"mass", masses_data(record, places, rows, &ProbeRow::mass)},
          {"contribution", masses_data(record, places, rows, &ProbeRow::contribution)},
          {"norm_mass", masses_data(record, places, rows, &ProbeRow::norm_mass)},
          {"free", free_data(identity, places)},
          {"cost", cost},
          {"ablations", order},
          {"effects", effects},
          {"interactions", interactions_data(findings, sets, identity.sets, rows)},
          {"dissociation", dissociation_data(findings, rows)},
          {"content", share},
          {"content_reads", read_share},
          {"motifs", own_motifs(findings, rows)}};
}

json motifs_data(const Findings& findings) {
  json out = json::array();
  for (const Motif& motif : findings.motifs) {
    out.push_back({{"name", motif.name},
                   {"title", slices_text(motif.slices)},
                   {"slices", motif.slices},
                   {"family", motif.slices.empty() ? 0 : motif.slices.front() / 6},
                   {"of_paper", motif.of_paper},
                   {"effect", columns(motif.effect)},
                   {"control", columns(motif.control)},
                   {"excess", columns(motif.excess)},
                   {"contribution_excess", columns(motif.contribution_excess)},
                   {"change", columns(motif.change)},
                   {"p", json_numbers(motif.p)},
                   {"mass", columns(motif.mass)},
                   {"contribution", columns(motif.contribution)},
                   {"uniform", json_number(motif.uniform_mass)},
                   {"shown_from", json_step(motif.shown_from)},
                   {"onset", json_steps(motif.onset)},
                   {"mass_onset", json_steps(motif.mass_onset)},
                   {"lead", json_estimate(motif.lead)}});
  }
  return out;
}

json atlas_data(const std::vector<ProbeRow>& rows, std::size_t most_numbers) {
  std::vector<const ProbeRow*> with;
  for (const ProbeRow& row : rows) {
    if (!row.atlas.empty()) with.push_back(&row);
  }
  json out = json::array();
  if (with.empty()) return out;
  const std::size_t cells = 4 * with.back()->atlas.first_order.size() + 7 * with.back()->atlas.checked.size();
  for (std::size_t i : thinned(with.size(), std::max<std::size_t>(1, most_numbers / std::max<std::size_t>(1, cells)))) {
    const Atlas& atlas = with[i]->atlas;
    json checked = json::array(), random = json::array(), p = json::array();
    std::vector<Estimate> truth;
    for (const CheckedRoute& route : atlas.checked) {
      checked.push_back(json::array({route.read, route.column}));
      random.push_back(route.by == CheckedBy::random);
      truth.push_back(route.true_effect);
      p.push_back(json_number(route.p_adjusted));
    }
    // A file without estimates (format 2) shows what it has.
    const bool estimated = atlas.has_estimate();
    const json shown = columns(estimated ? atlas.estimate : atlas.first_order), masked = columns(truth);
    out.push_back({{"step", with[i]->step},
                   {"estimated", estimated},
                   {"estimate", shown.at("value")},
                   {"lower", shown.at("lower")},
                   {"upper", shown.at("upper")},
                   {"first", columns(atlas.first_order).at("value")},
                   {"checked", checked},
                   {"random", random},
                   {"true", masked.at("value")},
                   {"true_lower", masked.at("lower")},
                   {"true_upper", masked.at("upper")},
                   {"true_p", p},
                   {"rank_correlation", json_number(atlas.rank_correlation)},
                   {"first_rank_correlation", json_number(atlas.first_order_rank_correlation)},
                   {"median_relative_error", json_number(atlas.median_relative_error)}});
  }
  return out;
}

}  // namespace routescope::analysis
