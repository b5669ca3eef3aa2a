#include "analysis/run_probe.h"

#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "data/error.h"
#include "data/files.h"
#include "kernels/agree.h"
#include "model/config.h"

namespace routescope {
namespace {

constexpr const char* weights_file = "model.safetensors";

}  // namespace

std::int64_t planned_steps(const std::filesystem::path& run_dir) {
  const std::filesystem::path file = run_dir / "config.yaml";
  try {
    const YAML::Node steps = YAML::Load(read_text(file))["train"]["steps"];
    if (!steps) throw Error("{}: key train.steps: found nothing, expected the number of steps", file.string());
    return steps.as<std::int64_t>();
  } catch (const YAML::Exception& wrong) {
    throw Error("{}: key train.steps: {}", file.string(), wrong.what());
  }
}

std::string model_sha256(const std::filesystem::path& model_dir) {
  const std::filesystem::path manifest = model_dir / "MANIFEST.json";
  if (!std::filesystem::exists(manifest)) return sha256_file(model_dir / weights_file);
  try {
    return nlohmann::json::parse(read_text(manifest)).at("files").at(weights_file).at("sha256").get<std::string>();
  } catch (const nlohmann::json::exception& wrong) {
    throw Error("{}: files.{}.sha256: {}", manifest.string(), weights_file, wrong.what());
  }
}

ProbeIdentity identify(const ProbeRequest& request, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir) {
  const ModelConfig config = ModelConfig::load(model_dir / "config.json");
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
      throw Error("{}: found sequences of {} tokens, expected {} as in {}, token by token", patch.origin,
                  patch.positions, tokens.positions, tokens.origin);
    }
  }
  identity.settings = request.settings;
  for (const RouteSet& set : route_sets(request.settings.sets, ReadPlan(config))) identity.sets.push_back(set.name);
  identity.classes = token_classes(tokens, request.settings);
  identity.model_config = config.to_json().dump();
  return identity;
}

RecordedProbe::RecordedProbe(std::filesystem::path file, const ProbeRequest& request, const ProbeIdentity& identity,
                             const ModelOptions& options, Communicator& communicator)
    : file_(std::move(file)), request_(request), options_(options), communicator_(communicator) {
  agree(communicator_, "the record of probes", [&] {
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
  agree(communicator_, "the model to probe", [&] {
    if (row && communicator_.rank() == 0) same = row->model_sha256 == model_sha256(model_dir) ? 1 : 0;
  });
  communicator_.all_reduce({&same, 1}, Reduction::min, "the model to probe");
  return same != 0;
}

const ProbeRow& RecordedProbe::row(std::int64_t step, const std::filesystem::path& model_dir, OtherWeights other) {
  const bool same = is_of(step, model_dir);
  if (same && has(step)) return *record_.find(step);
  std::string sha256;
  std::optional<Model> model;
  agree(communicator_, "the model to probe", [&] {
    sha256 = model_sha256(model_dir);
    if (!same && other == OtherWeights::refuse) {
      throw Error(
          "{}: /model_sha256: step {} was probed on other weights ({}) than {} has ({}): name another file with --out, "
          "or remove this one",
          file_.string(), step, record_.find(step)->model_sha256, model_dir.string(), sha256);
    }
    if (communicator_.rank() == 0 && std::filesystem::exists(model_dir / "MANIFEST.json")) verify_manifest(model_dir);
    model.emplace(Model::load(model_dir, options_));
    if (model->config().to_json().dump() != record_.identity.model_config) {
      throw Error("{}: is another model than the record's (attribute model_config of {})", model_dir.string(),
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
  agree(communicator_, "the record of probes", [&] {
    if (!file_.empty() && communicator_.rank() == 0) record_.save(file_);
  });
  return *record_.find(step);
}

}  // namespace routescope
