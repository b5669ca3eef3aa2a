#include "analysis/commands/circuit_command.h"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/circuits/circuit_file.h"
#include "analysis/circuits/circuit_text.h"
#include "analysis/circuits/graph.h"
#include "analysis/circuits/measure_circuit.h"
#include "analysis/commands/checkpoints.h"
#include "analysis/commands/options.h"
#include "analysis/commands/place.h"
#include "analysis/record/run_probe.h"
#include "analysis/results/task_file.h"
#include "data/base/command_line.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "kernels/comm/agree.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

struct CircuitArguments {
  Place place;
  ProbeSettings tokens;  // what names the tokens
  CircuitSettings settings;
  std::string step = "latest", graphs;

  /// Where rows are recorded; empty: nowhere.
  fs::path record() const {
    if (!place.out.empty() || place.run.empty()) return place.out;
    return fs::path(place.run) / circuit_name(fs::path(tokens.task).stem().string());
  }
};

CircuitIdentity identity_of(const CircuitArguments& a, const fs::path& model_dir) {
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  const ProbeSettings& t = a.tokens;
  return identify_circuits(config,
                           !t.task.empty()    ? load_task(t.task, config.vocab_size).run.first(t.sequences)
                           : t.tokens.empty() ? run_probe_tokens(a.place.run, config).first(t.sequences)
                                              : load_probe_tokens(t.tokens, t.sequences, t.positions, config),
                           a.settings);
}

/// Throws Error if the recorded row is of other weights.
void expect_same_weights(const CircuitRow* row, const std::string& sha256, const fs::path& model_dir,
                         const fs::path& file) {
  if (row && !is_of_weights(row->model_sha256, model_dir))
    throw data::Error(
        "{}: /model_sha256: step {} was measured on other weights ({}) than {} has ({}): name another file with --out, "
        "or remove this one",
        file.string(), row->step, row->model_sha256, model_dir.string(), sha256);
}

/// The circuit of one model: that of the record, or a new one, which is then saved.
void measure_one(CircuitRecord& record, const data::CheckpointEntry& entry, const fs::path& file, const Ranks& ranks,
                 const model::ModelOptions& options) {
  std::string sha256;
  kernels::agree(ranks.communicator, "the model", [&] {
    sha256 = model_sha256(entry.dir);
    expect_same_weights(record.find(entry.step), sha256, entry.dir, file);
  });
  // Another program may have added the row after some ranks had read the file.
  double there = record.find(entry.step) ? 1 : 0;
  ranks.communicator.all_reduce({&there, 1}, kernels::Reduction::min, "the rows that are recorded");
  if (there != 0) return ranks.print("{}: step {} is there already\n", file.string(), entry.step);
  std::optional<model::Model> model;
  kernels::agree(ranks.communicator, "the model", [&] {
    if (ranks.communicator.rank() == 0 && fs::exists(entry.dir / "MANIFEST.json")) data::verify_model(entry.dir);
    model.emplace(model::Model::load(entry.dir, options));
    if (model->config().to_json().dump() != record.identity.model_config)
      throw data::Error("{}: is another model than that of the other steps", entry.dir.string());
  });
  CircuitRow row = measure_circuit(*model, record.identity, entry.step, ranks.communicator);
  row.model_sha256 = sha256;
  kernels::agree(ranks.communicator, "the record of circuits", [&] {
    if (ranks.communicator.rank() == 0 && !file.empty()) add_circuit(file, record.identity, row);
  });
  record.put(std::move(row));
}

void write_graphs(const CircuitRow& row, const CircuitIdentity& identity, const fs::path& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw data::Error("{}: cannot create: {}", dir.string(), error.message());
  const std::string name = fmt::format("circuit-{}", row.step);
  data::write_text_atomically(dir / (name + ".json"), circuit_json(row, identity));
  data::write_text_atomically(dir / (name + ".graphml"), circuit_graphml(row, identity));
}

void check_arguments(const CircuitArguments& a) {
  const ProbeSettings& t = a.tokens;
  if (a.place.run.empty() == a.place.model.empty()) throw data::UsageError("circuit: expected either --run or --model");
  if (!t.task.empty() && !t.tokens.empty())
    throw data::UsageError("--task: found --tokens beside it, expected the task's own prompts");
  if (!a.place.model.empty() && t.tokens.empty() && t.task.empty())
    throw data::UsageError("circuit: --model needs --tokens or --task");
}

int run_circuit(const CircuitArguments& a, const Ranks& ranks, const model::ModelOptions& options) {
  check_arguments(a);
  const Place& place = a.place;
  std::vector<data::CheckpointEntry> models{{0, place.model}};
  if (!place.run.empty()) models = ranks.checkpoints([&] { return chosen_checkpoints(place.run, a.step); });
  const fs::path file = a.record();
  CircuitRecord record;
  kernels::agree(ranks.communicator, "the record of circuits", [&] {
    if (ranks.communicator.rank() == 0 && !file.empty()) join_circuits(file);
  });
  kernels::agree(ranks.communicator, "the record of circuits", [&] {
    const CircuitIdentity identity = identity_of(a, models.front().dir);
    record = file.empty() ? CircuitRecord{identity, {}, {}} : open_circuits(file, identity);
  });
  if (const std::string warning = documents_warning(record.identity.tokens); !warning.empty())
    ranks.print("{}\n", warning);
  for (const data::CheckpointEntry& entry : models) {
    measure_one(record, entry, file, ranks, options);
    ranks.print("{}\n", circuit_text(*record.find(entry.step), record.identity));
    kernels::agree(ranks.communicator, "the graphs", [&] {
      if (ranks.communicator.rank() == 0 && !a.graphs.empty())
        write_graphs(*record.find(entry.step), record.identity, a.graphs);
    });
  }
  kernels::agree(ranks.communicator, "the record of circuits", [&] {
    if (ranks.communicator.rank() == 0 && !file.empty()) record = load_circuits(file);
  });
  if (record.rows.size() > 1) ranks.print("{}", circuits_table(record));
  if (!file.empty()) ranks.print("{}: {} rows\n", file.string(), record.rows.size());
  return 0;
}

void add_options(CLI::App& command, CircuitArguments& a) {
  command.add_option("--run", a.place.run, "Run directory");
  command.add_option("--model", a.place.model, "Model directory, in place of a run");
  command.add_option("--step", a.step, "Of a run: a saved step, latest or all")->capture_default_str();
  command.add_option("--out", a.place.out,
                     "circuit.h5 to write (of a run: DIR/circuit.h5, of a task DIR/circuit-task-NAME.h5)");
  command.add_option("--export", a.graphs, "Directory for circuit-STEP.json and circuit-STEP.graphml");
  add_token_options(command, a.tokens);
  command
      .add_option("--task", a.tokens.task,
                  "In place of tokens: prompts with answers (data/formats/tasks.md), of which only answers are scored")
      ->group("Tokens");
  CircuitSettings& s = a.settings;
  command
      .add_option_function<std::string>(
          "--score",
          [&s](const std::string& name) { s.score = name == "estimate" ? ScoreKind::estimate : ScoreKind::exact; },
          "What ranks edges: exact (the effect of ablating each alone) or estimate (the atlas's, for large models)")
      ->check(CLI::IsMember({"exact", "estimate"}))
      ->default_str("exact")
      ->group("Circuit");
  command
      .add_option_function<std::string>(
          "--ablation", [&s](const std::string& name) { s.ablation = ablation_from_string(name); },
          "What is done to edges that are not kept: mean, zero or resample")
      ->check(CLI::IsMember({"mean", "zero", "resample"}))
      ->default_str("mean")
      ->group("Circuit");
  data::add_number(command, "--faithfulness", s.faithfulness,
                   "The circuit is the first edges that reach it on the scoring half", data::above_zero, 1.0)
      ->group("Circuit");
  command
      .add_flag("--prune", s.prune,
                "Rank the circuit's edges again by what dropping each costs there, and take as few as still reach it")
      ->group("Circuit");
  data::add_number(command, "--baselines", s.baselines, "Random orders to compare with", 0, most_random_orders)
      ->group("Circuit");
  data::add_number(command, "--seed", s.seed, "Of the halves, random orders, donors and resampling", 0,
                   std::numeric_limits<std::int64_t>::max())
      ->group("Circuit");
  add_place_options(command, a.place);
}

}  // namespace

Subcommand add_circuit_command(CLI::App& tool) {
  CLI::App* command = tool.add_subcommand(
      "circuit", "The edges (routes) that a model needs: faithfulness, completeness, minimality on held-out documents");
  const auto a = std::make_shared<CircuitArguments>();
  add_options(*command, *a);
  return {command, [=] {
            return on_all_ranks(a->place, a->tokens, [&](const Ranks& ranks, const model::ModelOptions& options) {
              return run_circuit(*a, ranks, options);
            });
          }};
}

}  // namespace routescope::analysis
