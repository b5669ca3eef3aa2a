#include "analysis/record/run_probe.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/probe/atlas.h"
#include "analysis/record/record_parts.h"
#include "analysis/results/task_file.h"
#include "analysis/writers/writers.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/yaml/yaml.h"
#include "kernels/comm/agree.h"
#include "model/files/config.h"
#include "model/files/rounded_weights.h"

namespace routescope::analysis {
namespace {

constexpr const char* weights_file = "model.safetensors";

ProbeIdentity preregistered(ProbeIdentity identity) {
  const std::string& file = identity.settings.preregistration;
  if (!file.empty()) identity.preregistration_sha256 = data::sha256_file(file);
  return identity;
}

/// With the prompts of a task, whose other prompts are what ablations take from.
ProbeIdentity identify_task(const ProbeSettings& settings, const std::filesystem::path& model_dir, bool patches) {
  for (const auto& [option, value] : {std::pair("--tokens", &settings.tokens), {"--patch-from", &settings.patch_from}})
    if (!value->empty()) throw data::UsageError("--task: found {} beside it, expected the task's own prompts", option);
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  const Task task = load_task(settings.task, config.vocab_size, settings.direction);
  if (patches && task.donors.sequences == 0)
    throw data::Error("{}: found no corrupted prompts, expected them for the ablation patch", settings.task);
  ProbeIdentity identity = identify(config, task.run.first(settings.sequences), settings,
                                    patches ? task.donors.first(settings.sequences) : ProbeTokens{});
  identity.task = {std::filesystem::path(settings.task).stem().string(), task.sha256, settings.direction};
  return preregistered(std::move(identity));
}

}  // namespace

std::int64_t planned_steps(const std::filesystem::path& run_dir) {
  const std::filesystem::path file = run_dir / "config.yaml";
  const auto steps = data::yaml_integer(data::read_yaml(file), "train.steps", file.string());
  if (!steps) throw data::Error("{}: key train.steps: found nothing, expected the number of steps", file.string());
  return *steps;
}

std::string model_sha256(const std::filesystem::path& model_dir) {
  const std::filesystem::path manifest = model_dir / "MANIFEST.json";
  if (!std::filesystem::exists(manifest)) return data::sha256_file(model_dir / weights_file);
  for (const data::ManifestEntry& entry : data::list_manifest(model_dir))
    if (entry.name == weights_file) return entry.sha256;
  throw data::Error("{}: files: {}: found nothing, expected its checksum", manifest.string(), weights_file);
}

bool is_of_weights(const std::string& sha256, const std::filesystem::path& model_dir) {
  return sha256 == model_sha256(model_dir) || sha256 == model::rounded_from(model_dir / weights_file);
}

ProbeIdentity identify(const ProbeSettings& settings, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir) {
  const auto& ablations = settings.ablations;
  const bool patches =
      std::any_of(ablations.begin(), ablations.end(), [](Ablation one) { return donor_of(one) == Donor::text; });
  if (!settings.task.empty()) return identify_task(settings, model_dir, patches);
  if (settings.direction != Direction::noising) throw data::UsageError("--direction needs --task");
  if (patches && settings.patch_from.empty()) throw data::UsageError("--ablation patch needs --patch-from");
  if (!patches && !settings.patch_from.empty()) throw data::UsageError("--patch-from needs --ablation patch");
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  const ProbeTokens tokens = settings.tokens.empty()
                                 ? run_probe_tokens(run_dir, config).first(settings.sequences)
                                 : load_probe_tokens(settings.tokens, settings.sequences, settings.positions, config);
  check_probe_tokens(tokens, config.vocab_size);
  ProbeTokens patch;
  if (patches) patch = load_aligned_tokens(settings.patch_from, tokens, settings.tokens, config);
  return preregistered(identify(config, tokens, settings, patch));
}

std::filesystem::path record_file(const std::filesystem::path& run_dir, const ProbeSettings& settings) {
  if (settings.task.empty()) return run_dir / "analysis.h5";
  const std::string direction = settings.direction == Direction::noising ? "" : "-" + to_string(settings.direction);
  return run_dir / fmt::format("task-{}{}.h5", std::filesystem::path(settings.task).stem().string(), direction);
}

RecordedProbe::RecordedProbe(std::filesystem::path file, const ProbeIdentity& identity,
                             const model::ModelOptions& options, kernels::Communicator& communicator, bool of_run)
    : file_(std::move(file)), identity_(identity), options_(options), communicator_(communicator), of_run_(of_run) {
  kernels::agree(communicator_, "the record of probes", [&] {
    if (file_.empty() || communicator_.rank() != 0) return;
    // Rows of an older version stay as they are.
    if (!record_exists(file_) || load_record(file_).identity.version == identity_.version) join_parts(file_);
  });
  load();
}

void RecordedProbe::load() {
  // Other programs may add rows while the ranks read.
  for (bool same = false; !same;) {
    std::string steps;
    kernels::agree(communicator_, "the record of probes", [&] {
      record_ = file_.empty() ? AnalysisRecord{identity_, {}, {}} : open_record(file_, identity_);
      for (const ProbeRow& row : record_.rows)
        steps += fmt::format("{} {} {} {} {}\n", row.step, row.model_sha256, row.atlas.empty(),
                             row.atlas.checked.size(), row.writers.empty());
    });
    const std::string of_first = communicator_.broadcast(steps, "the rows that are recorded");
    double others = steps == of_first ? 0 : 1;
    communicator_.all_reduce({&others, 1}, kernels::Reduction::max, "the rows that are recorded");
    same = others == 0;
  }
}

void RecordedProbe::refresh() {
  if (!file_.empty()) load();
}

void RecordedProbe::refuse(std::int64_t step, const std::string& found, const std::filesystem::path& model_dir) const {
  throw data::Error(
      "{}: /model_sha256: step {} was probed on other weights ({}) than {} has ({}): name another file with --out, or "
      "remove this one",
      file_.string(), step, found, model_dir.string(), model_sha256(model_dir));
}

bool RecordedProbe::has(std::int64_t step) const {
  const ProbeRow* row = record_.find(step);
  return row && has_atlas(*row) && has_writers(*row);
}

bool RecordedProbe::has_atlas(const ProbeRow& row) const {
  if (!identity_.settings.atlas) return true;
  const std::size_t wanted = static_cast<std::size_t>(identity_.settings.atlas_checks);
  return row.atlas.has_estimate() &&
         row.atlas.random_checks() >= std::min(wanted, maskable_routes(identity_.plan()).size());
}

bool RecordedProbe::is_of(std::int64_t step, const std::filesystem::path& model_dir) const {
  const ProbeRow* row = record_.find(step);
  double same = 1;
  kernels::agree(communicator_, "the model to probe", [&] {
    if (row && communicator_.rank() == 0) same = is_of_weights(row->model_sha256, model_dir) ? 1 : 0;
  });
  communicator_.all_reduce({&same, 1}, kernels::Reduction::min, "the model to probe");
  return same != 0;
}

ProbeOptions RecordedProbe::options_of(std::int64_t step) const {
  ProbeOptions options;
  options.initial = of_run_ && step == 0;
  if (const ProbeRow* initial = of_run_ ? record_.find(0) : nullptr) options.reference_nll = initial->intact_nll;
  return options;
}

const ProbeRow& RecordedProbe::row(std::int64_t step, const std::filesystem::path& model_dir, OtherWeights other) {
  if (is_of(step, model_dir) && has(step)) return *record_.find(step);
  std::string sha256;
  std::optional<model::Model> model;
  kernels::agree(communicator_, "the model to probe", [&] {
    if (communicator_.rank() == 0) sha256 = model_sha256(model_dir);
  });
  sha256 = communicator_.broadcast(sha256, "the model to probe");
  const ProbeRow* recorded = record_.find(step);
  const bool same = !recorded || recorded->model_sha256 == sha256;
  kernels::agree(communicator_, "the model to probe", [&] {
    if (!same && other == OtherWeights::refuse) {
      refuse(step, record_.find(step)->model_sha256, model_dir);
    }
    if (communicator_.rank() == 0 && std::filesystem::exists(model_dir / "MANIFEST.json"))
      data::verify_model(model_dir);
    model.emplace(model::Model::load(model_dir, options_));
    if (const std::string now = model_sha256(model_dir); now != sha256)
      throw data::Error("{}: model.safetensors: found SHA-256 {}, expected {}: it changed while it was read",
                        model_dir.string(), now, sha256);
    if (communicator_.rank() == 0 && !model::rounded_from(model_dir / weights_file).empty())
      spdlog::info("{}: its weights are rounded to bf16 (checkpoint.weights_dtype)", model_dir.string());
    if (model->config().to_json().dump() != record_.identity.model_config) {
      throw data::Error("{}: is another model than the record's (attribute model_config of {})", model_dir.string(),
                        file_.string());
    }
  });
  ProbeRow row;
  if (const ProbeRow* found = record_.find(step); found && same) {
    row = *found;
  } else {
    row = probe(*model, identity_, step, communicator_, options_of(step));
    row.model_sha256 = sha256;
  }
  if (!has_atlas(row)) row.atlas = make_atlas(*model, identity_, step, communicator_);
  if (!has_writers(row)) row.writers = measure_writers(*model, identity_, step, row.margin, communicator_);
  keep(row, model_dir, other);
  return *record_.find(step);
}

void RecordedProbe::keep(const ProbeRow& row, const std::filesystem::path& model_dir, OtherWeights other) {
  if (file_.empty()) return record_.put(row);
  kernels::agree(communicator_, "the record of probes", [&] {
    if (communicator_.rank() != 0) return;
    const ProbeRow* was = record_.find(row.step);
    std::string replaces = was && was->model_sha256 != row.model_sha256 ? was->model_sha256 : "";
    // Another program may have added a row of this step, of other weights: those that are saved now count.
    while (true) {
      add_row(file_, identity_, row, replaces);
      const AnalysisRecord now = load_record(file_);
      const std::string& found = now.find(row.step)->model_sha256;
      if (found == row.model_sha256) break;
      if (other == OtherWeights::refuse || model_sha256(model_dir) != row.model_sha256)
        refuse(row.step, found, model_dir);
      replaces = found;
    }
  });
  load();
}

}  // namespace routescope::analysis
