#include "analysis/record/run_probe.h"

#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>
#include <optional>

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

ProbeIdentity identify(const ProbeRequest& request, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir) {
  const model::ModelConfig config = model::ModelConfig::load(model_dir / "config.json");
  ProbeIdentity identity;
  if (request.tokens.empty()) {
    identity.tokens = run_probe_tokens(run_dir).first(request.sequences);
  } else {
    identity.tokens = load_probe_tokens(request.tokens, request.sequences, request.positions, config.vocab_size);
  }
  const ProbeTokens& tokens = identity.tokens;
  check_probe_tokens(tokens, config.vocab_size);
  if (!request.patch_from.empty()) {
    ProbeTokens& patch = identity.patch;
    patch = load_probe_tokens(request.patch_from, tokens.sequences, tokens.positions, config.vocab_size);
    check_probe_tokens(patch, config.vocab_size);
    if (patch.positions != tokens.positions) {
      throw data::Error("{}: found sequences of {} tokens, expected {} as in {}, token by token", patch.origin,
                        patch.positions, tokens.positions, tokens.origin);
    }
  }
  identity.settings = request.settings;
  for (const RouteSet& set : route_sets(request.settings.sets, model::ReadPlan(config)))
    identity.sets.push_back(set.name);
  identity.classes = token_classes(tokens, request.settings);
  identity.model_config = config.to_json().dump();
  return identity;
}

RecordedProbe::RecordedProbe(std::filesystem::path file, const ProbeRequest& request, const ProbeIdentity& identity,
                             const model::ModelOptions& options, kernels::Communicator& communicator)
    : file_(std::move(file)), request_(request), options_(options), communicator_(communicator) {
  kernels::agree(communicator_, "the record of probes", [&] {
    record_ = file_.empty() ? AnalysisRecord{identity, {}, {}} : open_record(file_, identity);
  });
}

bool RecordedProbe::has(std::int64_t step) const {
  const ProbeRow* row = record_.find(step);
  return row && !(request_.atlas && row->atlas.empty());
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
  const ProbeIdentity& identity = record_.identity;
  ProbeRow row;
  if (const ProbeRow* found = record_.find(step); found && same) {
    row = *found;
  } else {
    row = probe(*model, identity.tokens,
                {.settings = identity.settings,
                 .step = step,
                 .patch = identity.patch.sequences > 0 ? &identity.patch : nullptr},
                communicator_);
    row.model_sha256 = sha256;
  }
  if (request_.atlas && row.atlas.empty()) {
    row.atlas =
        make_atlas(*model, identity.tokens,
                   {.seed = identity.settings.seed, .step = step, .checks = request_.atlas_checks}, communicator_);
  }
  record_.put(std::move(row));
  kernels::agree(communicator_, "the record of probes", [&] {
    if (!file_.empty() && communicator_.rank() == 0) record_.save(file_);
  });
  return *record_.find(step);
}

}  // namespace routescope::analysis
