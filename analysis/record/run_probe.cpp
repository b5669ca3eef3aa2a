#include "analysis/record/run_probe.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/probe/atlas.h"
#include "analysis/probe/probe.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/comm/agree.h"
#include "model/files/config.h"

namespace routescope::analysis {
namespace {

constexpr const char* weights_file = "model.safetensors";

}  // namespace

std::int64_t planned_steps(const std::filesystem::path& run_dir) {
  const std::filesystem::path file = run_dir / "config.yaml";
  try {
    const YAML::Node steps = YAML::Load(data::read_text(file))["train"]["steps"];
    if (!steps) throw data::Error("{}: key train.steps: found nothing, expected the number of steps", file.string());
    return steps.as<std::int64_t>();
  } catch (const YAML::Exception& wrong) {
    throw data::Error("{}: key train.steps: {}", file.string(), wrong.what());
  }
}

std::string model_sha256(const std::filesystem::path& model_dir) {
  const std::filesystem::path manifest = model_dir / "MANIFEST.json";
  if (!std::filesystem::exists(manifest)) return data::sha256_file(model_dir / weights_file);
  try {
    return nlohmann::json::parse(data::read_text(manifest))
        .at("files")
        .at(weights_file)
        .at("sha256")
        .get<std::string>();
  } catch (const nlohmann::json::exception& wrong) {
    throw data::Error("{}: files.{}.sha256: {}", manifest.string(), weights_file, wrong.what());
  }
}

ProbeIdentity identify(const ProbeSettings& settings, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir) {
  const auto& ablations = settings.ablations;
  const bool patches = std::find(ablations.begin(), ablations.end(), Ablation::patch) != ablations.end();
  if (patches && settings.patch_from.empty()) throw data::UsageError("--ablation patch needs --patch-from");
  if (!patches && !settings.patch_from.empty()) throw data::UsageError("--patch-from needs --ablation patch");
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  const ProbeTokens tokens = settings.tokens.empty() ? run_probe_tokens(run_dir).first(settings.sequences)
                                                     : load_probe_tokens(settings.tokens, settings.sequences,
                                                                         settings.positions, config.vocab_size);
  check_probe_tokens(tokens, config.vocab_size);
  ProbeTokens patch;
  if (patches) patch = load_probe_tokens(settings.patch_from, tokens.sequences, tokens.positions, config.vocab_size);
  return identify(config, tokens, settings, patch);
}

RecordedProbe::RecordedProbe(std::filesystem::path file, const ProbeIdentity& identity,
                             const model::ModelOptions& options, kernels::Communicator& communicator)
    : file_(std::move(file)), identity_(identity), options_(options), communicator_(communicator) {
  kernels::agree(communicator_, "the record of probes", [&] {
    record_ = file_.empty() ? AnalysisRecord{identity, {}, {}} : open_record(file_, identity);
  });
}

bool RecordedProbe::has(std::int64_t step) const {
  const ProbeRow* row = record_.find(step);
  return row && !(identity_.settings.atlas && row->atlas.empty());
}

bool RecordedProbe::is_of(std::int64_t step, const std::filesystem::path& model_dir) const {
  const ProbeRow* row = record_.find(step);
  double same = 1;
  kernels::agree(communicator_, "the model to probe", [&] {
    if (row && communicator_.rank() == 0) same = row->model_sha256 == model_sha256(model_dir) ? 1 : 0;
  });
  communicator_.all_reduce({&same, 1}, kernels::Reduction::min, "the model to probe");
  return same != 0;
}

const ProbeRow& RecordedProbe::row(std::int64_t step, const std::filesystem::path& model_dir, OtherWeights other) {
  const bool same = is_of(step, model_dir);
  if (same && has(step)) return *record_.find(step);
  std::string sha256;
  std::optional<model::Model> model;
  kernels::agree(communicator_, "the model to probe", [&] {
    sha256 = model_sha256(model_dir);
    if (!same && other == OtherWeights::refuse) {
      throw data::Error(
          "{}: /model_sha256: step {} was probed on other weights ({}) than {} has ({}): name another file with --out, "
          "or remove this one",
          file_.string(), step, record_.find(step)->model_sha256, model_dir.string(), sha256);
    }
    if (communicator_.rank() == 0 && std::filesystem::exists(model_dir / "MANIFEST.json"))
      data::verify_manifest(model_dir);
    model.emplace(model::Model::load(model_dir, options_));
    if (model->config().to_json().dump() != record_.identity.model_config) {
      throw data::Error("{}: is another model than the record's (attribute model_config of {})", model_dir.string(),
                        file_.string());
    }
  });
  ProbeRow row;
  if (const ProbeRow* found = record_.find(step); found && same) {
    row = *found;
  } else {
    row = probe(*model, identity_, step, communicator_);
    row.model_sha256 = sha256;
  }
  if (identity_.settings.atlas && row.atlas.empty()) row.atlas = make_atlas(*model, identity_, step, communicator_);
  record_.put(std::move(row));
  kernels::agree(communicator_, "the record of probes", [&] {
    if (!file_.empty() && communicator_.rank() == 0) save_record(record_, file_);
  });
  return *record_.find(step);
}

}  // namespace routescope::analysis
