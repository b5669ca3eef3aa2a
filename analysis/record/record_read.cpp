#include "analysis/record/record_read.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "analysis/record/record_fields.h"
#include "analysis/routes/route_sets.h"
#include "data/base/error.h"
#include "data/base/json.h"
#include "data/hdf5/file.h"
#include "data/records/probe_documents.h"

namespace routescope::analysis {
namespace {

/// The major version.
std::int64_t check_format(const data::hdf5::File& file, const std::string& name) {
  if (!file.has("filetype") || file.text("filetype") != analysis_filetype) {
    throw data::Error("{}: attribute filetype: found '{}', expected '{}'", name,
                      file.has("filetype") ? data::shortened(file.text("filetype")) : "nothing", analysis_filetype);
  }
  const std::vector<std::int64_t> version = file.integers("version");
  const bool whole = version.size() == 2;
  if (whole && version[0] >= analysis_version_oldest && version[0] < analysis_version_major) return version[0];
  // The file is written whole: what a newer version added would be lost.
  if (whole && version[0] == analysis_version_major && version[1] <= analysis_version_minor) return version[0];
  const bool older = whole && version[0] < analysis_version_oldest;
  throw data::Error(
      "{}: attribute version: found [{}], expected [{}, 0] to [{}, {}]{}", name,
      data::shortened(fmt::format("{}", fmt::join(version, ", "))), analysis_version_oldest, analysis_version_major,
      analysis_version_minor,
      older ? ": an older version measured less: remove the file, or name another with --out, and probe again" : "");
}

using data::hdf5::Type;

/// Of an axis.
std::int64_t length(const data::hdf5::File& file, const std::string& path) {
  return file.dataset(path).rows();
}

data::hdf5::Dataset checked(const data::hdf5::File& file, const std::string& path, Type type,
                            const data::hdf5::Shape& shape) {
  return data::checked_dataset(file, {.path = path, .type = type}, shape);
}

ProbeTokens read_tokens(const data::hdf5::File& file, const std::string& path) {
  const data::hdf5::Shape shape{length(file, "seq"), length(file, "pos")};
  const data::hdf5::Dataset dataset = checked(file, path, Type::i32, shape);
  if (shape[0] < 1 || shape[1] < 2)
    throw data::Error("{}: found {} sequences of {} tokens, expected at least one of at least two", dataset.where(),
                      shape[0], shape[1]);
  return {shape[0], shape[1], dataset.read<std::int32_t>(), dataset.text("origin")};
}

std::vector<Answer> read_answers(const data::hdf5::File& file, const ProbeTokens& tokens, std::int64_t vocab_size) {
  const data::hdf5::Shape shape{tokens.sequences};
  const data::hdf5::Dataset at = checked(file, "answer_position", Type::i32, shape),
                            other = checked(file, "answer_distractor", Type::i32, shape);
  const auto position = at.read<std::int32_t>(), distractor = other.read<std::int32_t>();
  std::vector<Answer> answers;
  for (std::size_t q = 0; q < position.size(); ++q) {
    if (position[q] < 0 || position[q] > tokens.positions - 2)
      throw data::Error("{}: element {}: found {}, expected 0 to {}", at.where(), q, position[q], tokens.positions - 2);
    if (distractor[q] < -1 || distractor[q] >= vocab_size)
      throw data::Error("{}: element {}: found {}, expected -1 to {}", other.where(), q, distractor[q], vocab_size - 1);
    answers.push_back({position[q], distractor[q]});
  }
  return answers;
}

TaskOrigin read_task(const data::hdf5::File& file, const std::string& name) {
  TaskOrigin task{file.text("task"), file.text("task_sha256"), Direction::noising};
  const std::string direction = file.text("task_direction");
  if (direction == to_string(Direction::denoising))
    task.direction = Direction::denoising;
  else if (direction != to_string(Direction::noising))
    throw data::Error("{}: attribute task_direction: found '{}', expected noising or denoising", name,
                      data::shortened(direction));
  return task;
}

std::vector<TokenClasses> read_classes(const data::hdf5::File& file, const ProbeTokens& tokens) {
  std::vector<TokenClasses> out;
  std::istringstream names(file.text("token_classes"));
  for (std::string name; names >> name;) {
    TokenClasses classes{name, {}, {}};
    classes.labels = file.read_text(class_axis(classes));
    const data::hdf5::Dataset dataset = checked(file, "token_" + name, Type::i32, {tokens.sequences, tokens.positions});
    const std::vector<std::int32_t> values = dataset.read<std::int32_t>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] < -1 || values[i] >= std::ssize(classes.labels))
        throw data::Error("{}: element {}: found class {}, expected -1 to {}", dataset.where(), i, values[i],
                          std::ssize(classes.labels) - 1);
      if (static_cast<std::int64_t>(i) % tokens.positions != 0) classes.of_token.push_back(values[i]);
    }
    out.push_back(std::move(classes));
  }
  return out;
}

ProbeIdentity read_identity(const data::hdf5::File& file, const std::string& name) {
  ProbeIdentity identity;
  identity.settings = settings_from_json(file.text("settings"), name + ": attribute settings");
  identity.model_config = file.text("model_config");
  if (file.has("preregistration_sha256")) identity.preregistration_sha256 = file.text("preregistration_sha256");
  identity.sets = file.read_text("slice");
  identity.tokens = read_tokens(file, "probe_tokens");
  if (const data::RecordField& field = data::probe_document_field(); file.exists(field.path)) {
    const std::int64_t sequences = identity.tokens.sequences;
    identity.tokens.documents = data::read_documents(checked(file, field.path, field.type, {sequences}), sequences);
  }
  if (file.exists("answer_position")) {
    const auto config = model::ModelConfig::parse(identity.model_config, name + ": attribute model_config");
    identity.tokens.answers = read_answers(file, identity.tokens, config.vocab_size);
    identity.task = read_task(file, name);
  }
  if (file.exists("patch_tokens")) identity.patch = read_tokens(file, "patch_tokens");
  identity.classes = read_classes(file, identity.tokens);
  std::vector<std::string> sets;
  try {
    for (const RouteSet& set : route_sets(identity.settings.sets, identity.plan())) sets.push_back(set.name);
  } catch (const data::Error& wrong) {
    throw data::Error("{}: {}", name, wrong.what());
  }
  if (sets != identity.sets)
    throw data::Error("{}: /slice: found {}, expected {} as in attribute settings", name, fmt::join(identity.sets, " "),
                      fmt::join(sets, " "));
  return identity;
}

std::vector<std::int64_t> read_steps(const data::hdf5::File& file, const std::string& path) {
  const data::hdf5::Dataset dataset = checked(file, path, Type::i64, {length(file, path)});
  const std::vector<std::int64_t> steps = dataset.read<std::int64_t>();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::int64_t before = i == 0 ? -1 : steps[i - 1];
    if (steps[i] <= before)
      throw data::Error("{}: found step {} after {}, expected a later one", dataset.where(), steps[i], before);
  }
  return steps;
}

/// The field of `rows`; an older file that lacks the dataset reads as if nothing had been measured.
std::vector<double> read_rows_of(const data::hdf5::File& file, const RecordGroup& group, const ProbeField& field,
                                 std::size_t rows, const data::AxisLengths& axes) {
  const std::string path = group.path_of(field);
  data::hdf5::Shape shape = data::shape_of(field, axes);
  shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
  if (file.exists(path)) return checked(file, path, field.type, shape).read<double>();
  return std::vector<double>(rows * static_cast<std::size_t>(data::row_size(field, axes)),
                             data::missing_value(field.type));
}

/// Sets the group's fields in those of `rows` that it has.
void read_group(const data::hdf5::File& file, const RecordGroup& group, data::AxisLengths axes,
                std::vector<ProbeRow*> rows) {
  if (group.has) {
    if (!file.exists(group.path)) return;
    const auto steps = read_steps(file, group.path + "/step");
    std::erase_if(rows, [&](const ProbeRow* row) { return std::count(steps.begin(), steps.end(), row->step) == 0; });
    if (rows.size() != steps.size())
      throw data::Error("{}: {}/step: found steps that are not in /step", file.file_state().name, group.path);
    if (group.has_checks()) axes["check"] = length(file, group.path + "/check");
  }
  for (const ProbeField& field : group.fields) {
    const std::vector<double> values = read_rows_of(file, group, field, rows.size(), axes);
    const std::int64_t width = data::row_size(field, axes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i) * width;
      field.set(*rows[i], {begin, begin + width});
    }
  }
}

/// Numbers that stand for something else do: routes that were masked, decisions.
void expect_meanings(const ProbeRow& row, const data::AxisLengths& axes, const std::string& name) {
  for (const AblationEffects& effects : row.ablations) {
    for (const SetEffect& set : effects.sets)
      if (set.decision > Decision::absent)
        throw data::Error("{}: {}/decision: step {}: found {}, expected 0 to 2", name, to_string(effects.ablation),
                          row.step, static_cast<int>(set.decision));
  }
  for (const CheckedRoute& route : row.atlas.checked) {
    if (route.read < 0 || route.read >= axes.at("read") || route.column < 0 || route.column >= axes.at("source"))
      throw data::Error(
          "{}: atlas/checked_read, checked_source: step {}: found route ({}, {}) of {} reads and {} sources", name,
          row.step, route.read, route.column, axes.at("read"), axes.at("source"));
    if (route.by != CheckedBy::random && route.by != CheckedBy::strongest)
      throw data::Error("{}: atlas/checked_by: step {}: found {}, expected 0 or 1", name, row.step,
                        static_cast<int>(route.by));
  }
}

/// Of a file whose atlas has no estimate: all checks were drawn at random, and what is said of the estimate's error was
/// meant of first_order.
void read_older_atlas(Atlas& atlas) {
  for (CheckedRoute& route : atlas.checked) route.by = CheckedBy::random;
  atlas.first_order_rank_correlation = std::exchange(atlas.rank_correlation, nan);
  atlas.median_relative_error = nan;
}

}  // namespace

AnalysisRecord read_record(const data::hdf5::File& file) {
  const std::string& path = file.file_state().name;
  const std::int64_t version = check_format(file, path);
  AnalysisRecord record;
  record.created = file.text("created");
  record.identity = read_identity(file, path);
  record.identity.version = version;

  const auto steps = read_steps(file, "step");
  const auto sha256 = checked(file, "model_sha256", Type::text, {std::ssize(steps)}).read_text();
  record.rows.resize(steps.size());
  std::vector<ProbeRow*> rows;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    ProbeRow& row = record.rows[i];
    row.step = steps[i];
    row.model_sha256 = sha256[i];
    for (Ablation ablation : record.identity.settings.ablations) row.ablations.emplace_back().ablation = ablation;
    rows.push_back(&row);
  }
  data::AxisLengths axes;
  try {
    axes = record_axes(record.identity);
  } catch (const data::Error& wrong) {
    throw data::Error("{}: {}", path, wrong.what());
  }
  for (const RecordGroup& group : record_groups(record.identity)) read_group(file, group, axes, rows);
  for (ProbeRow& row : record.rows) {
    if (!row.atlas.empty() && !file.exists("atlas/estimate")) read_older_atlas(row.atlas);
    if (version == 2) row.margin = record.identity.settings.margin;
    expect_meanings(row, axes, path);
  }
  return record;
}

}  // namespace routescope::analysis
