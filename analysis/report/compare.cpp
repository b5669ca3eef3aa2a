#include "analysis/report/compare.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "analysis/commands/tables.h"
#include "data/base/error.h"
#include "data/records/routing_view.h"

namespace routescope::analysis {
namespace {

/// run.seed, or -1 where the file does not say.
std::int64_t seed_of(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.yaml";
  if (!std::filesystem::exists(file)) return -1;
  try {
    return YAML::LoadFile(file.string())["run"]["seed"].as<std::int64_t>(-1);
  } catch (const YAML::Exception& error) {
    throw data::Error("{}: not a configuration: {}", file.string(), error.msg);
  }
}

std::string name_of(const std::filesystem::path& run) {
  const std::filesystem::path absolute = std::filesystem::absolute(run).lexically_normal();
  return (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
}

StudyRun load_run(const std::filesystem::path& dir) {
  if (!std::filesystem::is_directory(dir)) throw data::Error("{}: no such directory, expected a run", dir.string());
  const std::filesystem::path analysis = dir / "analysis.h5", routing = dir / "routing.h5";
  if (!std::filesystem::exists(analysis))
    throw data::Error("{}: no such file, expected probes of the run (routescope-analyze track)", analysis.string());
  StudyRun run;
  run.name = name_of(dir);
  run.seed = seed_of(dir);
  run.record = AnalysisRecord::load(analysis);
  if (std::filesystem::exists(routing)) {
    const data::RoutingRecordView view = data::RoutingRecordView::load(routing);
    if (!view.train.empty()) {
      run.trained_steps = view.train.back().step;
      run.tokens_seen = view.train.back().tokens_seen;
      run.train_loss = view.train.back().loss;
    }
    if (!view.valid.empty()) run.valid_loss = view.valid.back().loss;
  }
  return run;
}

std::vector<std::int64_t> common_steps(std::span<const StudyRun> runs) {
  std::vector<std::int64_t> out;
  for (const ProbeRow& row : runs.front().record.rows) {
    if (std::all_of(runs.begin(), runs.end(), [&](const StudyRun& run) { return run.record.find(row.step); }))
      out.push_back(row.step);
  }
  return out;
}

/// Its sets are the 18 slices, in their order.
void check_slices(const AnalysisRecord& record, const std::string& name) {
  const std::vector<std::string>& sets = record.identity.sets;
  for (std::size_t s = 0; s < std::max<std::size_t>(sets.size(), num_slices); ++s) {
    if (s < sets.size() && s < num_slices && sets[s] == slice_name(s)) continue;
    throw data::Error("{}: found probes of {} sets of routes, the one of index {} {}, expected the {} slices", name,
                      sets.size(), s, s < sets.size() ? "named " + sets[s] : "missing", num_slices);
  }
}

void check_baseline(const AnalysisRecord& baseline, const AnalysisRecord& run) {
  if (baseline.rows.empty()) throw data::Error("baseline: found no row, expected the probe of a wrapped model");
  if (baseline.identity.tokens.ids != run.identity.tokens.ids) {
    throw data::Error("baseline: was probed on other tokens ({}) than the runs ({})", baseline.identity.tokens.origin,
                      run.identity.tokens.origin);
  }
  check_slices(baseline, "baseline");
}

}  // namespace

OverRuns over_runs(std::span<const double> values) {
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

model::ModelConfig study_model(const Study& study) {
  const StudyRun& run = study.runs.front();
  try {
    return model::ModelConfig::from_json(nlohmann::json::parse(run.record.identity.model_config), run.name);
  } catch (const nlohmann::json::exception& error) {
    throw data::Error("{}: model_config is not JSON: {}", run.name, error.what());
  }
}

Study make_study(std::vector<StudyRun> runs, std::optional<AnalysisRecord> baseline, const std::string& about) {
  if (runs.empty()) throw data::UsageError("compare: found no run, expected --run DIR at least once");
  for (std::size_t i = 0; i < runs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (runs[j].name == runs[i].name)
        throw data::Error("compare: found two runs named '{}', expected different names", runs[i].name);
    }
    check_slices(runs[i].record, runs[i].name);
  }
  Study study;
  study.about = about;
  study.steps = common_steps(runs);
  if (study.steps.empty()) throw data::Error("compare: found no step that all {} runs were probed at", runs.size());
  if (baseline) {
    check_baseline(*baseline, runs.front().record);
    baseline->rows.erase(baseline->rows.begin(), baseline->rows.end() - 1);
  }

  std::vector<AnalysisRecord> records;
  for (StudyRun& run : runs) {
    std::erase_if(run.record.rows, [&](const ProbeRow& row) {
      return !std::binary_search(study.steps.begin(), study.steps.end(), row.step);
    });
    run.findings = find(run.record);
    records.push_back(run.record);
  }
  study.pooled = pool(records);
  study.runs = std::move(runs);
  study.baseline = std::move(baseline);
  return study;
}

Study load_study(std::span<const std::string> runs, const std::filesystem::path& baseline, const std::string& about) {
  std::vector<StudyRun> loaded;
  for (const std::string& dir : runs) loaded.push_back(load_run(dir));
  std::optional<AnalysisRecord> wrapped;
  if (!baseline.empty()) {
    if (!std::filesystem::exists(baseline))
      throw data::Error("{}: no such file, expected the probe of a wrapped model", baseline.string());
    wrapped = AnalysisRecord::load(baseline);
  }
  return make_study(std::move(loaded), std::move(wrapped), about);
}

}  // namespace routescope::analysis
