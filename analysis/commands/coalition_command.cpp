#include "analysis/commands/coalition_command.h"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <optional>

#include "analysis/coalitions/coalition_text.h"
#include "analysis/coalitions/measure_coalitions.h"
#include "analysis/commands/checkpoints.h"
#include "analysis/commands/options.h"
#include "analysis/commands/place.h"
#include "analysis/record/run_probe.h"
#include "analysis/routes/route_sets.h"
#include "data/base/command_line.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

constexpr int most_permutations = 10'000;

struct CoalitionArguments {
  Place place;
  ProbeSettings tokens;  // what names the tokens
  CoalitionSettings settings;
  std::string step = "latest";
};

void measure_one(const CoalitionArguments& a, const data::CheckpointEntry& entry, const Ranks& ranks,
                 const model::ModelOptions& options) {
  std::optional<model::Model> model;
  ProbeTokens tokens;
  kernels::agree(ranks.communicator, "the model", [&] {
    const model::ModelConfig config = model::ModelConfig::load(entry.dir / "config.json");
    expect_reads(model::ReadPlan(config));
    const ProbeSettings& t = a.tokens;
    tokens = t.tokens.empty() ? run_probe_tokens(a.place.run, config).first(t.sequences)
                              : load_probe_tokens(t.tokens, t.sequences, t.positions, config);
    check_probe_tokens(tokens, config.vocab_size);
    if (ranks.communicator.rank() == 0 && fs::exists(entry.dir / "MANIFEST.json")) data::verify_manifest(entry.dir);
    model.emplace(model::Model::load(entry.dir, options));
  });
  if (const std::string warning = documents_warning(tokens); !warning.empty()) ranks.print("{}\n", warning);
  const CoalitionRow row = measure_coalitions(*model, tokens, a.settings, ranks.communicator);
  ranks.print("{}\n", coalition_text(row, a.settings, tokens, entry.step));
  if (a.place.out.empty()) return;
  kernels::agree(ranks.communicator, "the file of coalitions", [&] {
    if (ranks.communicator.rank() == 0)
      data::write_text_atomically(a.place.out,
                                  coalition_json(row, a.settings, tokens, entry.step, model_sha256(entry.dir)));
  });
  ranks.print("{}\n", a.place.out);
}

int run_coalitions(const CoalitionArguments& a, const Ranks& ranks, const model::ModelOptions& options) {
  const Place& place = a.place;
  if (place.run.empty() == place.model.empty()) throw data::UsageError("coalitions: expected either --run or --model");
  if (!place.model.empty() && a.tokens.tokens.empty()) throw data::UsageError("coalitions: --model needs --tokens");
  std::vector<data::CheckpointEntry> models{{0, place.model}};
  if (!place.run.empty()) models = ranks.checkpoints([&] { return chosen_checkpoints(place.run, a.step); });
  if (models.size() > 1 && !place.out.empty())
    throw data::UsageError("coalitions: --out is the file of one step: found {} steps", models.size());
  for (const data::CheckpointEntry& entry : models) measure_one(a, entry, ranks, options);
  return 0;
}

}  // namespace

Subcommand add_coalition_command(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand(
      "coalitions", "What slices do alone, kept alone and in pairs, and their Shapley values: idle or redundant?");
  const auto a = std::make_shared<CoalitionArguments>();
  command->add_option("--run", a->place.run, "Run directory");
  command->add_option("--model", a->place.model, "Model directory, in place of a run");
  command->add_option("--step", a->step, "Of a run: a saved step, latest or all")->capture_default_str();
  command->add_option("--out", a->place.out, "JSON file to write, of one step");
  add_token_options(*command, a->tokens);
  CoalitionSettings& s = a->settings;
  data::add_number(*command, "--permutations", s.permutations,
                   "Random orders of the slices, each with its reverse, for their Shapley values; 0: none", 0,
                   most_permutations)
      ->group("Coalitions");
  data::add_number(*command, "--margin", s.margin,
                   "Share of ln(vocabulary) minus the nll: an effect shown to lie within it counts as none",
                   data::above_zero)
      ->group("Coalitions");
  data::add_number(*command, "--seed", s.seed, "Of orders and resampling", 0, std::numeric_limits<std::int64_t>::max())
      ->group("Coalitions");
  add_place_options(*command, a->place);
  return {command, [=] {
            return on_all_ranks(a->place, a->tokens, [&](const Ranks& ranks, const model::ModelOptions& options) {
              return run_coalitions(*a, ranks, options);
            });
          }};
}

}  // namespace routescope::analysis
