#include "analysis/report/study.h"

#include <algorithm>
#include <cmath>

#include "analysis/circuits/circuit_file.h"
#include "data/base/error.h"
#include "data/base/manifest.h"
#include "data/yaml/yaml.h"

namespace routescope::analysis {
namespace {

/// run.seed, or -1 where the file does not say.
std::int64_t seed_of(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.yaml";
  if (!std::filesystem::exists(file)) return -1;
  return data::yaml_integer(data::read_yaml(file), "run.seed", file.string()).value_or(-1);
}

std::string name_of(const std::filesystem::path& directory) {
  const std::filesystem::path absolute = std::filesystem::absolute(directory).lexically_normal();
  return (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
}

AnalysisRecord load_probes(const std::filesystem::path& file) {
  if (!record_exists(file))
    throw data::Error("{}: no such file, expected probe results (routescope-analyze track)", file.string());
  AnalysisRecord record = load_record(file);
  if (record.rows.empty()) throw data::Error("{}: found no row, expected a probed step", file.string());
  return record;
}

/// The files DIR/PREFIXNAME.h5, by name. Parts and what was measured otherwise are none (record_parts.h).
std::vector<std::filesystem::path> files_of(const std::filesystem::path& directory, const std::string& prefix) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".h5") && name.find(".h5-step-") == std::string::npos)
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Of every DIR/task-NAME.h5 (run_probe.h), by name.
std::vector<AnalysisRecord> load_tasks(const std::filesystem::path& directory) {
  std::vector<AnalysisRecord> tasks;
  for (const std::filesystem::path& file : files_of(directory, "task-")) {
    tasks.push_back(load_probes(file));
    if (!tasks.back().identity.tokens.is_task())
      throw data::Error("{}: found a probe of text, expected one of a task: name it otherwise", file.string());
  }
  return tasks;
}

/// What a run has in the file that `name` gives for text, and then in those for tasks, by name.
template <class One, class Exists, class Name, class Load>
std::vector<One> load_measured(const std::filesystem::path& run, const Exists& exists, const Name& name,
                               const Load& load) {
  std::vector<One> out;
  if (const std::filesystem::path file = run / name(""); exists(file)) out.push_back({"", load(file)});
  const std::string prefix = std::filesystem::path(name("-")).stem().string().substr(0, name("-").size() - 4);
  for (const std::filesystem::path& file : files_of(run, prefix))
    out.push_back({file.stem().string().substr(prefix.size()), load(file)});
  for (const One& one : out)
    if (one.record.rows.empty())
      throw data::Error("{}: found no row, expected a measured step", (run / name(one.task)).string());
  return out;
}

void take_routing(StudyRun& run, data::RoutingRecordView routing) {
  if (!routing.train.empty()) {
    run.trained_steps = routing.train.back().step;
    run.tokens_seen = routing.train.back().tokens_seen;
    run.train_loss = routing.train.back().loss;
  }
  if (!routing.valid.empty()) run.valid_loss = routing.valid.back().loss;
  run.routing = std::move(routing);
}

StudyRun load_run(const std::filesystem::path& directory, bool must_be_probed) {
  if (!std::filesystem::is_directory(directory))
    throw data::Error("{}: no such directory, expected a run", directory.string());
  const std::filesystem::path routing = directory / "routing.h5", probes = directory / "analysis.h5";
  StudyRun run;
  run.name = name_of(directory);
  run.seed = seed_of(directory);
  run.checkpoints = data::list_checkpoints(directory).size();
  if (must_be_probed || record_exists(probes)) run.record = load_probes(probes);
  run.tasks = load_tasks(directory);
  if (std::filesystem::exists(routing)) {
    take_routing(run, data::RoutingRecordView::load(routing));
  } else if (run.record.rows.empty()) {
    throw data::Error("{}: no such file, expected a run directory", routing.string());
  }
  return run;
}

/// A bare model's probe is named by its file, a run's by its directory.
StudyBaseline load_baseline(const std::filesystem::path& file) {
  return {file.stem() == "analysis" ? name_of(file.parent_path()) : file.stem().string(), load_probes(file), {}};
}

/// From the newest checkpoint of a run.
std::optional<model::ModelConfig> saved_config(const std::filesystem::path& run) {
  const std::vector<data::CheckpointEntry> checkpoints = data::list_checkpoints(run);
  if (checkpoints.empty()) return std::nullopt;
  return model::ModelConfig::load(checkpoints.back().dir / "config.json");
}

model::ModelConfig probed_config(const StudyRun& run) {
  return model::ModelConfig::parse(run.record.identity.model_config, run.name + ": model_config");
}

/// Pools several runs, and leaves each with the rows of the steps that all have. Runs that cannot be pooled stay as
/// they are, and the study says why.
void pool_runs(Study& study) {
  std::vector<AnalysisRecord> records;
  for (const StudyRun& run : study.runs) records.push_back(run.record);
  try {
    study.pooled = pool(records);
  } catch (const data::Error& error) {
    study.not_pooled = error.what();
    return;
  }
  const std::vector<std::int64_t>& steps = study.pooled->step;
  for (StudyRun& run : study.runs) {
    std::erase_if(run.record.rows,
                  [&](const ProbeRow& row) { return !std::binary_search(steps.begin(), steps.end(), row.step); });
  }
}

}  // namespace

OverRuns over_runs(const std::vector<double>& values) {
  OverRuns out;
  double sum = 0;
  int count = 0;
  for (double value : values) {
    if (std::isnan(value)) continue;
    out.least = count == 0 ? value : std::min(out.least, value);
    out.greatest = count == 0 ? value : std::max(out.greatest, value);
    sum += value;
    ++count;
  }
  if (count > 0) out.mean = sum / count;
  return out;
}

Study make_study(std::vector<StudyRun> runs, std::vector<StudyBaseline> baselines, std::string about) {
  if (runs.empty()) throw data::UsageError("found no run, expected --run DIR at least once");
  Study study;
  study.about = std::move(about);
  study.runs = std::move(runs);
  study.baselines = std::move(baselines);
  if (study.probed()) {
    study.config = probed_config(study.runs.front());
    if (study.runs.size() > 1) pool_runs(study);
    for (StudyRun& run : study.runs) run.findings = find(run.record);
  }
  for (StudyBaseline& baseline : study.baselines) {
    baseline.record.rows.erase(baseline.record.rows.begin(), baseline.record.rows.end() - 1);
    baseline.findings = find(baseline.record);
  }
  return study;
}

StudyCircuits load_study_circuits(const std::vector<std::filesystem::path>& runs) {
  StudyCircuits out;
  for (const std::filesystem::path& run : runs)
    out.push_back(load_measured<RunCircuits>(run, circuits_exist, circuit_name, load_circuits));
  return out;
}

StudyCoalitions load_study_coalitions(const std::vector<std::filesystem::path>& runs) {
  const auto exists = [](const std::filesystem::path& file) { return std::filesystem::exists(file); };
  StudyCoalitions out;
  for (const std::filesystem::path& run : runs)
    out.push_back(load_measured<RunCoalitions>(run, exists, coalition_name, load_coalitions));
  return out;
}

Study load_study(const StudyRequest& request) {
  const bool must_be_probed = request.runs.size() + request.baselines.size() > 1;
  std::vector<StudyRun> runs;
  for (const std::filesystem::path& directory : request.runs) runs.push_back(load_run(directory, must_be_probed));
  std::vector<StudyBaseline> baselines;
  for (const std::filesystem::path& file : request.baselines) baselines.push_back(load_baseline(file));
  Study study = make_study(std::move(runs), std::move(baselines), request.about);
  if (!study.config) study.config = saved_config(request.runs.front());
  return study;
}

}  // namespace routescope::analysis
