#include "analysis/commands/coalition_command.h"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/coalitions/coalition_file.h"
#include "analysis/coalitions/coalition_text.h"
#include "analysis/coalitions/measure_coalitions.h"
#include "analysis/commands/checkpoints.h"
#include "analysis/commands/options.h"
#include "analysis/commands/place.h"
#include "analysis/record/run_probe.h"
#include "analysis/results/task_file.h"
#include "analysis/routes/route_sets.h"
#include "analysis/step_file/step_file.h"
#include "data/base/command_line.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

struct CoalitionArguments {
  Place place;
  ProbeSettings tokens;  // what names the tokens
  CoalitionSettings settings;
  std::string step = "latest";

  /// --out F.json is of one step, and nothing is recorded.
  bool json() const { return fs::path(place.out).extension() == ".json"; }
  /// Where rows are recorded; empty: nowhere.
  fs::path record() const {
    if (json()) return {};
    if (!place.out.empty()) return place.out;
    return place.run.empty() ? fs::path() : fs::path(place.run) / coalition_name(fs::path(tokens.task).stem().string());
  }
};

CoalitionIdentity identity_of(const CoalitionArguments& a, const fs::path& model_dir) {
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  expect_reads(model::ReadPlan(config));
  const ProbeSettings& t = a.tokens;
  CoalitionIdentity identity{{}, a.settings, config.to_json().dump()};
  identity.tokens = !t.task.empty()    ? load_task(t.task, config.vocab_size).run.first(t.sequences)
                    : t.tokens.empty() ? run_probe_tokens(a.place.run, config).first(t.sequences)
                                       : load_probe_tokens(t.tokens, t.sequences, t.positions, config);
  check_probe_tokens(identity.tokens, config.vocab_size);
  return identity;
}

/// The row of one model: that of the record, or a new one, which is then saved.
void measure_one(CoalitionRecord& record, const data::CheckpointEntry& entry, const fs::path& file, const Ranks& ranks,
                 const model::ModelOptions& options) {
  std::string sha256;
  std::optional<model::Model> model;
  const CoalitionRow* found = row_at(record.rows, entry.step);
  kernels::agree(ranks.communicator, "the model", [&] {
    sha256 = model_sha256(entry.dir);
    if (found && !is_of_weights(found->model_sha256, entry.dir))
      throw data::Error(
          "{}: /model_sha256: step {} was measured on other weights ({}) than {} has ({}): name another file with "
          "--out, or remove this one",
          file.string(), entry.step, found->model_sha256, entry.dir.string(), sha256);
    if (found) return;
    if (ranks.communicator.rank() == 0 && fs::exists(entry.dir / "MANIFEST.json")) data::verify_model(entry.dir);
    model.emplace(model::Model::load(entry.dir, options));
    if (model->config().to_json().dump() != record.identity.model_config)
      throw data::Error("{}: is another model than that of the other steps", entry.dir.string());
  });
  if (found) return ranks.print("{}: step {} is there already\n", file.string(), entry.step);
  CoalitionRow row = measure_coalitions(*model, record.identity.tokens, record.identity.settings, ranks.communicator);
  row.step = entry.step;
  row.model_sha256 = sha256;
  put_row(record.rows, std::move(row));
  kernels::agree(ranks.communicator, "the record of coalitions", [&] {
    if (ranks.communicator.rank() == 0 && !file.empty()) save_coalitions(record, file);
  });
}

void check_arguments(const CoalitionArguments& a) {
  const ProbeSettings& t = a.tokens;
  if (a.place.run.empty() == a.place.model.empty())
    throw data::UsageError("coalitions: expected either --run or --model");
  if (!t.task.empty() && !t.tokens.empty())
    throw data::UsageError("--task: found --tokens beside it, expected the task's own prompts");
  if (!a.place.model.empty() && t.tokens.empty() && t.task.empty())
    throw data::UsageError("coalitions: --model needs --tokens or --task");
}

int run_coalitions(const CoalitionArguments& a, const Ranks& ranks, const model::ModelOptions& options) {
  check_arguments(a);
  std::vector<data::CheckpointEntry> models{{0, a.place.model}};
  if (!a.place.run.empty()) models = ranks.checkpoints([&] { return chosen_checkpoints(a.place.run, a.step); });
  if (models.size() > 1 && a.json())
    throw data::UsageError("coalitions: a JSON file is of one step: found {} steps", models.size());
  const fs::path file = a.record();
  CoalitionRecord record;
  kernels::agree(ranks.communicator, "the record of coalitions", [&] {
    const CoalitionIdentity identity = identity_of(a, models.front().dir);
    record = file.empty() ? CoalitionRecord{identity, {}, {}} : open_coalitions(file, identity);
  });
  const CoalitionIdentity& identity = record.identity;
  if (const std::string warning = documents_warning(identity.tokens); !warning.empty()) ranks.print("{}\n", warning);
  for (const data::CheckpointEntry& entry : models) {
    measure_one(record, entry, file, ranks, options);
    const CoalitionRow& row = *row_at(record.rows, entry.step);
    ranks.print("{}\n", coalition_text(row, identity.settings, identity.tokens, entry.step));
    if (!a.json()) continue;
    kernels::agree(ranks.communicator, "the file of coalitions", [&] {
      if (ranks.communicator.rank() == 0)
        data::write_text_atomically(
            a.place.out, coalition_json(row, identity.settings, identity.tokens, entry.step, row.model_sha256));
    });
    ranks.print("{}\n", a.place.out);
  }
  if (!file.empty()) ranks.print("{}: {} rows\n", file.string(), record.rows.size());
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
  command->add_option("--out", a->place.out,
                      "coalitions.h5 to write (of a run: DIR/coalitions.h5, of a task DIR/coalitions-task-NAME.h5); or "
                      "F.json, of one step, and nothing else");
  add_token_options(*command, a->tokens);
  command
      ->add_option("--task", a->tokens.task,
                   "In place of tokens: prompts with answers (data/formats/tasks.md), of which only answers are scored")
      ->group("Tokens");
  CoalitionSettings& s = a->settings;
  data::add_number(*command, "--permutations", s.permutations,
                   "Random orders of the slices, each with its reverse, for their Shapley values; 0: none", 0,
                   most_permutations)
      ->group("Coalitions");
  data::add_number(*command, "--until-width", s.until_width,
                   "Look after 4, 8, 16, ... of these orders, and stop where every interval is at most this share of "
                   "what ablating all slices costs wide; 0: all orders",
                   0.0)
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
