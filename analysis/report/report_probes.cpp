// What the probes found, as the page's figures take it.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "analysis/commands/tables.h"
#include "analysis/report/report_parts.h"
#include "analysis/routes/slices.h"

namespace routescope::analysis::report {

using nlohmann::json;

json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0) return 0;
  const double scale = std::pow(10.0, 4 - std::ceil(std::log10(std::abs(value))));
  return std::isfinite(scale) ? std::round(value * scale) / scale : 0.0;
}

json numbers(const std::vector<double>& values) {
  json out = json::array();
  for (double value : values) out.push_back(number(value));
  return out;
}

json estimate(const Estimate& estimate) {
  return json::array({number(estimate.value), number(estimate.ci.lower), number(estimate.ci.upper)});
}

json step(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json steps(const Estimate& estimate) {
  return json::array({step(estimate.value), step(estimate.ci.lower), step(estimate.ci.upper)});
}

std::vector<std::size_t> thinned(std::size_t n, std::size_t count) {
  std::vector<std::size_t> out;
  if (n <= count) {
    for (std::size_t i = 0; i < n; ++i) out.push_back(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) out.push_back(count == 1 ? n - 1 : i * (n - 1) / (count - 1));
  }
  return out;
}

namespace {

model::Family slice_family(int slice) {
  return static_cast<model::Family>(slice / 6);
}
model::Sublayer slice_sublayer(int slice) {
  return static_cast<model::Sublayer>(slice / 3 % 2);
}
model::Depth slice_depth(int slice) {
  return static_cast<model::Depth>(slice % 3);
}

std::string sublayer_word(model::Sublayer sublayer) {
  return sublayer == model::Sublayer::attn ? "attention" : "MLP";
}

/// value(item) of a subject's sets at the places of the page's sets.
template <class Item, class Value>
json placed(const std::vector<Item>& items, const std::vector<std::ptrdiff_t>& place, const Value& value) {
  json out = json::array();
  for (std::ptrdiff_t at : place)
    out.push_back(at < 0 || at >= std::ssize(items) ? json() : number(value(items[static_cast<std::size_t>(at)])));
  return out;
}

json effects_data(const AnalysisRecord& analysis, Ablation ablation, const std::vector<std::ptrdiff_t>& place) {
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
  json out = json::object();
  for (const auto& [name, value] : fields) {
    json rows = json::array();
    for (const ProbeRow& row : analysis.rows) rows.push_back(placed(row.effects(ablation).sets, place, value));
    out[name] = std::move(rows);
  }
  return out;
}

}  // namespace

std::string set_title(const std::string& name) {
  for (int slice = 0; slice < num_slices; ++slice) {
    if (slice_name(static_cast<std::size_t>(slice)) == name) return motif_title({slice});
  }
  return name;
}

std::string motif_title(const std::vector<int>& slices) {
  // Families into readers; readers of one depth are named together.
  std::map<model::Family, std::map<model::Depth, std::vector<std::string>>> readers;
  for (int slice : slices)
    readers[slice_family(slice)][slice_depth(slice)].push_back(sublayer_word(slice_sublayer(slice)));
  std::string out;
  for (const auto& [family, depths] : readers) {
    if (!out.empty()) out += "; ";
    out += model::to_string(family) + " \u2192 ";
    bool first = true;
    for (const auto& [depth, kinds] : depths) {
      if (!first) out += ", ";
      first = false;
      out += model::to_string(depth) + " " + kinds.front() + (kinds.size() > 1 ? " and " + kinds.back() : "");
    }
  }
  return out;
}

json subject_data(const ReportSubject& subject, const std::vector<std::string>& sets) {
  const AnalysisRecord& analysis = subject.analysis;
  std::vector<std::ptrdiff_t> place;
  for (const std::string& name : sets) {
    const auto found = std::find(analysis.identity.sets.begin(), analysis.identity.sets.end(), name);
    place.push_back(found == analysis.identity.sets.end() ? -1 : found - analysis.identity.sets.begin());
  }
  json at_step = json::array(), nll = json::array(), mass = json::array(), cost = json::array();
  for (const ProbeRow& row : analysis.rows) {
    at_step.push_back(row.step);
    nll.push_back(number(row.intact_nll));
    mass.push_back(placed(row.mass, place, std::identity{}));
    cost.push_back(json::array(
        {number(row.cost.plain), number(row.cost.computed), number(row.cost.unshared), number(row.cost.undecided)}));
  }
  json ablations = json::object();
  json order = json::array();
  if (!analysis.rows.empty()) {
    for (const AblationEffects& effects : analysis.rows.front().ablations) {
      order.push_back(to_string(effects.ablation));
      ablations[to_string(effects.ablation)] = effects_data(analysis, effects.ablation, place);
    }
  }
  json dissociation = json::array(), share = json::array(), read_share = json::array();
  for (const Dissociation& row : subject.findings.dissociation) {
    dissociation.push_back({{"rank_correlation", estimate(row.rank_correlation)},
                            {"largest_mass", row.largest_mass},
                            {"largest_effect", row.largest_effect},
                            {"p_same", number(row.p_same)},
                            {"p_largest", number(row.p_largest)},
                            {"idle", row.idle}});
  }
  for (const Content& row : subject.findings.content) {
    share.push_back(number(row.mean_share));
    read_share.push_back(numbers(row.share));
  }
  json motifs = json::array();
  for (const Motif& motif : subject.findings.motifs) {
    json effect = json::array(), weight = json::array();
    for (const Estimate& at : motif.effect) effect.push_back(number(at.value));
    for (const Estimate& at : motif.mass) weight.push_back(number(at.value));
    motifs.push_back({{"name", motif.name},
                      {"title", motif_title(motif.slices)},
                      {"of_paper", motif.of_paper},
                      {"effect", effect},
                      {"mass", weight},
                      {"last", motif.effect.empty() ? json() : estimate(motif.effect.back())},
                      {"excess", motif.excess.empty() ? json() : estimate(motif.excess.back())},
                      {"onset", steps(motif.onset)},
                      {"mass_onset", steps(motif.mass_onset)}});
  }
  const ProbeIdentity& identity = analysis.identity;
  return {{"name", subject.name},
          {"baseline", subject.baseline},
          {"sequences", identity.tokens.sequences},
          {"positions", identity.tokens.positions},
          {"margin", identity.settings.margin},
          {"until_decided", identity.settings.until_decided},
          {"controls", identity.settings.controls},
          {"step", at_step},
          {"nll", nll},
          {"mass", mass},
          {"cost", cost},
          {"ablations", order},
          {"effects", ablations},
          {"dissociation", dissociation},
          {"content", share},
          {"content_reads", read_share},
          {"motifs", motifs}};
}

json motif_data(const Findings& findings) {
  const auto columns = [](const std::vector<Estimate>& rows) {
    json value = json::array(), lower = json::array(), upper = json::array();
    for (const Estimate& row : rows) {
      value.push_back(number(row.value));
      lower.push_back(number(row.ci.lower));
      upper.push_back(number(row.ci.upper));
    }
    return json{{"value", value}, {"lower", lower}, {"upper", upper}};
  };
  json out = json::array();
  for (const Motif& motif : findings.motifs) {
    out.push_back({{"name", motif.name},
                   {"title", motif_title(motif.slices)},
                   {"family", motif.slices.empty() ? "" : model::to_string(slice_family(motif.slices.front()))},
                   {"of_paper", motif.of_paper},
                   {"effect", columns(motif.effect)},
                   {"control", columns(motif.control)},
                   {"excess", columns(motif.excess)},
                   {"mass", columns(motif.mass)},
                   {"uniform", number(motif.uniform_mass)},
                   {"shown_from", step(motif.shown_from)},
                   {"onset", steps(motif.onset)},
                   {"mass_onset", steps(motif.mass_onset)},
                   {"lead", estimate(motif.lead)}});
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
  const std::size_t cells = 3 * with.back()->atlas.first_order.size() + 5 * with.back()->atlas.checked.size();
  for (std::size_t i : thinned(with.size(), std::max<std::size_t>(1, most_numbers / std::max<std::size_t>(1, cells)))) {
    const Atlas& atlas = with[i]->atlas;
    std::vector<double> first, lower, upper, truth, true_lower, true_upper;
    for (const Estimate& effect : atlas.first_order) {
      first.push_back(effect.value);
      lower.push_back(effect.ci.lower);
      upper.push_back(effect.ci.upper);
    }
    json checked = json::array();
    for (const auto& [read, column, effect] : atlas.checked) {
      checked.push_back(json::array({read, column}));
      truth.push_back(effect.value);
      true_lower.push_back(effect.ci.lower);
      true_upper.push_back(effect.ci.upper);
    }
    out.push_back({{"step", with[i]->step},
                   {"first", numbers(first)},
                   {"lower", numbers(lower)},
                   {"upper", numbers(upper)},
                   {"checked", checked},
                   {"true", numbers(truth)},
                   {"true_lower", numbers(true_lower)},
                   {"true_upper", numbers(true_upper)},
                   {"rank_correlation", estimate(atlas.rank_correlation)},
                   {"median_relative_error", number(atlas.median_relative_error)}});
  }
  return out;
}

}  // namespace routescope::analysis::report
