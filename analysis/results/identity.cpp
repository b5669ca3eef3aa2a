#include "analysis/results/identity.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "analysis/routes/route_sets.h"
#include "analysis/statistics/sequential.h"
#include "data/base/error.h"

namespace routescope::analysis {
namespace {

/// Whether the sequences of each document follow one another, as document_sums() needs them.
bool are_consecutive(const std::vector<std::int64_t>& documents) {
  std::vector<std::int64_t> firsts = documents;
  firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
  std::sort(firsts.begin(), firsts.end());
  return std::adjacent_find(firsts.begin(), firsts.end()) == firsts.end();
}

void check_identity(const ProbeIdentity& identity, std::int64_t vocab_size) {
  const ProbeSettings& settings = identity.settings;
  const ProbeTokens &tokens = identity.tokens, &patch = identity.patch;
  check(settings);
  check_probe_tokens(tokens, vocab_size);
  if (settings.writers && tokens.is_task())
    throw data::UsageError("--writers: found the prompts of a task, expected text");
  if (settings.until_decided && tokens.sequences < sequential_least_n)
    throw data::UsageError("--until-decided: found {} sequences, expected at least {}, before which nothing is decided",
                           tokens.sequences, sequential_least_n);
  if (settings.until_decided && !are_consecutive(tokens.documents))
    throw data::UsageError(
        "--until-decided: {}: found sequences of one document apart from each other, expected them one after another",
        tokens.origin);
  if (std::none_of(settings.ablations.begin(), settings.ablations.end(),
                   [](Ablation one) { return donor_of(one) == Donor::text; }))
    return;
  if (patch.sequences == 0) throw data::UsageError("ablation patch: found no aligned tokens, expected --patch-from");
  check_probe_tokens(patch, vocab_size);
  if (patch.sequences != tokens.sequences || patch.positions != tokens.positions) {
    throw data::Error("{}: found {} sequences of {} tokens, expected {} of {}, aligned with {}", patch.origin,
                      patch.sequences, patch.positions, tokens.sequences, tokens.positions, tokens.origin);
  }
}

}  // namespace

model::ReadPlan ProbeIdentity::plan() const {
  return model::ReadPlan(model::ModelConfig::parse(model_config, "attribute model_config"));
}

ProbeIdentity identify(const model::ModelConfig& config, ProbeTokens tokens, ProbeSettings settings,
                       ProbeTokens patch) {
  ProbeIdentity identity{.tokens = std::move(tokens),
                         .settings = std::move(settings),
                         .sets = {},
                         .model_config = config.to_json().dump(),
                         .classes = {},
                         .patch = std::move(patch)};
  const model::ReadPlan plan(config);
  // Of a model without reads only writers can be measured.
  ProbeSettings& asked = identity.settings;
  if (plan.num_routed() == 0 && asked.writers && asked.sets.empty() && !asked.atlas)
    asked.ablations.clear();
  else
    expect_reads(plan);
  check_identity(identity, config.vocab_size);
  for (const RouteSet& set : route_sets(identity.settings.sets, plan)) identity.sets.push_back(set.name);
  identity.classes = token_classes(identity.tokens, identity.settings);
  return identity;
}

}  // namespace routescope::analysis
