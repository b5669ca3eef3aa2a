#include "analysis/circuits/circuit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/routes/route_sets.h"
#include "analysis/statistics/documents.h"
#include "analysis/statistics/permutation.h"
#include "analysis/step_file/step_file.h"
#include "data/base/json.h"

namespace routescope::analysis {
namespace {

using json = nlohmann::ordered_json;

constexpr std::uint64_t halves_stream = 0x68616c766573;  // of Philox; nothing else draws from it

ScoreKind score_from_string(const std::string& text, const std::string& where) {
  if (text == "exact") return ScoreKind::exact;
  if (text == "estimate") return ScoreKind::estimate;
  throw data::Error("{}: found '{}', expected exact or estimate", where, text);
}

}  // namespace

std::string to_string(ScoreKind kind) {
  return kind == ScoreKind::exact ? "exact" : "estimate";
}

std::string to_json(const CircuitSettings& settings) {
  return json{{"seed", settings.seed},
              {"score", to_string(settings.score)},
              {"ablation", to_string(settings.ablation)},
              {"faithfulness", settings.faithfulness},
              {"baselines", settings.baselines},
              {"prune", settings.prune}}
      .dump();
}

CircuitSettings circuit_settings_from_json(const std::string& text, const std::string& where) {
  const json object = data::parse_json<json>(text, where);
  CircuitSettings out;
  out.seed = data::json_member<std::uint64_t>(object, "seed", where);
  out.score = score_from_string(data::json_member<std::string>(object, "score", where), where + ": score");
  out.faithfulness = data::json_member<double>(object, "faithfulness", where);
  out.baselines = data::json_member<int>(object, "baselines", where);
  out.prune = data::json_member<bool>(object, "prune", where);
  try {
    out.ablation = ablation_from_string(data::json_member<std::string>(object, "ablation", where));
    check(out);
  } catch (const data::UsageError& wrong) {
    throw data::Error("{}: {}", where, wrong.what());
  }
  if (const auto keys = data::parse_json<json>(to_json(out), where).size(); object.size() != keys)
    throw data::Error("{}: found {} keys, expected {}", where, object.size(), keys);
  return out;
}

void check(const CircuitSettings& settings) {
  if (settings.seed > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    throw data::UsageError("seed: found {}, expected at most {}", settings.seed,
                           std::numeric_limits<std::int64_t>::max());
  if (settings.ablation != Ablation::mean && settings.ablation != Ablation::zero &&
      settings.ablation != Ablation::resample)
    throw data::UsageError("ablation: found {}, expected mean, zero or resample", to_string(settings.ablation));
  if (!(settings.faithfulness > 0) || !(settings.faithfulness <= 1))
    throw data::UsageError("faithfulness: found {}, expected a number above 0, at most 1", settings.faithfulness);
  if (settings.baselines < 0 || settings.baselines > most_random_orders)
    throw data::UsageError("baselines: found {}, expected 0 to {}", settings.baselines, most_random_orders);
}

model::ReadPlan CircuitIdentity::plan() const {
  return model::ReadPlan(model::ModelConfig::parse(model_config, "attribute model_config"));
}

CircuitIdentity identify_circuits(const model::ModelConfig& config, ProbeTokens tokens,
                                  const CircuitSettings& settings) {
  expect_reads(model::ReadPlan(config));
  check(settings);
  check_probe_tokens(tokens, config.vocab_size);
  const auto of_sequence = document_numbers(tokens.documents, static_cast<std::size_t>(tokens.sequences));
  const std::size_t documents = of_sequence.empty() ? 0 : *std::max_element(of_sequence.begin(), of_sequence.end()) + 1;
  if (documents < 2)
    throw data::Error(
        "{}: found {} document{}, expected at least 2: one half of them scores edges, the other reports on the circuit",
        tokens.origin, documents, documents == 1 ? "" : "s");
  const std::vector<std::size_t> order = random_permutation(documents, settings.seed, halves_stream);
  std::vector<std::uint8_t> document_held_out(documents, 1);
  for (std::size_t i = 0; i < documents / 2; ++i) document_held_out[order[i]] = 0;
  CircuitIdentity identity{std::move(tokens), settings, config.to_json().dump(), {}};
  for (const std::size_t document : of_sequence) identity.held_out.push_back(document_held_out[document]);
  return identity;
}

ProbeTokens half_of(const CircuitIdentity& identity, bool held_out) {
  const ProbeTokens& all = identity.tokens;
  ProbeTokens out{0, all.positions, {}, all.origin + (held_out ? ", the half that is held out" : ", the scoring half")};
  for (std::int64_t q = 0; q < all.sequences; ++q) {
    if ((identity.held_out[static_cast<std::size_t>(q)] != 0) != held_out) continue;
    const auto first = all.ids.begin() + static_cast<std::ptrdiff_t>(q * all.positions);
    out.ids.insert(out.ids.end(), first, first + static_cast<std::ptrdiff_t>(all.positions));
    if (!all.documents.empty()) out.documents.push_back(all.documents[static_cast<std::size_t>(q)]);
    if (all.is_task()) out.answers.push_back(all.answers[static_cast<std::size_t>(q)]);
    ++out.sequences;
  }
  return out;
}

std::vector<Edge> circuit_edges(const model::ReadPlan& plan, Ablation ablation) {
  std::vector<Edge> edges;
  for (int r = 0; r < plan.num_routed(); ++r) {
    for (const int column : plan.reads[static_cast<std::size_t>(r)].columns) {
      const GatedRoute route{r, column};
      if (!changed_reads(plan, ablation, {&route, 1}).empty()) edges.emplace_back(r, column);
    }
  }
  std::sort(edges.begin(), edges.end());
  return edges;
}

std::string edge_name(const model::ReadPlan& plan, const Edge& edge) {
  return plan.reads[static_cast<std::size_t>(edge.first)].name + "<-" +
         plan.columns[static_cast<std::size_t>(edge.second)];
}

std::vector<std::int64_t> kept_counts(std::size_t edges) {
  std::vector<std::int64_t> out;
  const std::size_t points = edges <= all_points ? edges : curve_points;
  for (std::size_t i = 0; i <= points; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(std::max<std::size_t>(points, 1));
    const double count = points == edges ? static_cast<double>(i) : share * share * static_cast<double>(edges);
    if (out.empty() || std::llround(count) > out.back()) out.push_back(std::llround(count));
  }
  return out;
}

std::vector<std::string> order_names(const CircuitSettings& settings) {
  std::vector<std::string> names{"score", "magnitude"};
  for (int i = 1; i <= settings.baselines; ++i) names.push_back(fmt::format("random_{}", i));
  return names;
}

std::size_t CircuitRow::size() const {
  return static_cast<std::size_t>(std::count(kept.begin(), kept.end(), std::uint8_t{1}));
}

const CircuitRow* CircuitRecord::find(std::int64_t step) const {
  return row_at(rows, step);
}

void CircuitRecord::put(CircuitRow row) {
  put_row(rows, std::move(row));
}

}  // namespace routescope::analysis
