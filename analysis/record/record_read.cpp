#include "analysis/record/record_read.h"

#include <algorithm>
#include <sstream>

#include "analysis/record/record_fields.h"
#include "data/base/error.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {
namespace {

void check_format(const data::hdf5::File& file, const std::string& name) {
  if (!file.has("filetype") || file.text("filetype") != analysis_filetype) {
    throw data::Error("{}: attribute filetype: found '{}', expected '{}'", name,
                      file.has("filetype") ? file.text("filetype") : "nothing", analysis_filetype);
  }
  const std::vector<std::int64_t> version = file.integers("version");
  // The file is written whole: what a newer version added would be lost.
  if (version.size() == 2 && version[0] == analysis_version_major && version[1] <= analysis_version_minor) return;
  const bool older = version.size() == 2 && version[0] < analysis_version_major;
  throw data::Error(
      "{}: attribute version: found [{}], expected [{}, 0] to [{}, {}]{}", name, fmt::join(version, ", "),
      analysis_version_major, analysis_version_major, analysis_version_minor,
      older ? ": an older version measured less: remove the file, or name another with --out, and probe again" : "");
}

ProbeTokens read_tokens(const data::hdf5::File& file, const std::string& path) {
  const data::hdf5::Dataset dataset = file.dataset(path);
  const data::hdf5::Shape shape = dataset.shape();
  if (shape.size() != 2) throw data::Error("{}: found {} axes, expected 2", dataset.where(), shape.size());
  return {shape[0], shape[1], dataset.read<std::int32_t>(), dataset.text("origin")};
}

std::vector<double> read_shape(const data::hdf5::File& file, const std::string& path,
                               const data::hdf5::Shape& expected) {
  const data::hdf5::Dataset dataset = file.dataset(path);
  if (dataset.shape() != expected) {
    throw data::Error("{}: found shape [{}], expected [{}]", dataset.where(), fmt::join(dataset.shape(), ", "),
                      fmt::join(expected, ", "));
  }
  return dataset.read<double>();
}

std::vector<TokenClasses> read_classes(const data::hdf5::File& file, const ProbeTokens& tokens) {
  std::vector<TokenClasses> out;
  std::istringstream names(file.text("token_classes"));
  for (std::string name; names >> name;) {
    TokenClasses classes{name, {}, {}};
    classes.labels = file.read_text(class_axis(classes));
    const std::vector<double> values = read_shape(file, "token_" + name, {tokens.sequences, tokens.positions});
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (static_cast<std::int64_t>(i) % tokens.positions != 0) classes.of_token.push_back(static_cast<int>(values[i]));
    }
    out.push_back(std::move(classes));
  }
  return out;
}

ProbeIdentity read_identity(const data::hdf5::File& file, const std::string& name) {
  ProbeIdentity identity;
  identity.settings = settings_from_json(file.text("settings"), name + ": attribute settings");
  identity.model_config = file.text("model_config");
  identity.sets = file.read_text("slice");
  identity.tokens = read_tokens(file, "probe_tokens");
  if (file.exists("patch_tokens")) identity.patch = read_tokens(file, "patch_tokens");
  identity.classes = read_classes(file, identity.tokens);
  return identity;
}

/// The field of `rows`; an older file that lacks the dataset reads as if nothing had been measured.
std::vector<double> read_rows_of(const data::hdf5::File& file, const RecordGroup& group, const ProbeField& field,
                                 std::size_t rows, const data::AxisLengths& axes) {
  const std::string path = group.path_of(field);
  data::hdf5::Shape shape = data::shape_of(field, axes);
  shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
  if (file.exists(path)) return read_shape(file, path, shape);
  return std::vector<double>(rows * static_cast<std::size_t>(data::row_size(field, axes)),
                             data::missing_value(field.type));
}

/// Sets the group's fields in those of `rows` that it has.
void read_group(const data::hdf5::File& file, const RecordGroup& group, data::AxisLengths axes,
                std::vector<ProbeRow*> rows) {
  if (group.has) {
    if (!file.exists(group.path)) return;
    const auto steps = file.read<std::int64_t>(group.path + "/step");
    std::erase_if(rows, [&](const ProbeRow* row) { return std::count(steps.begin(), steps.end(), row->step) == 0; });
    axes["check"] = file.dataset(group.path + "/check").rows();
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

}  // namespace

AnalysisRecord read_record(const data::hdf5::File& file) {
  const std::string& path = file.file_state().name;
  check_format(file, path);
  AnalysisRecord record;
  record.created = file.text("created");
  record.identity = read_identity(file, path);

  const auto steps = file.read<std::int64_t>("step");
  const auto sha256 = file.read_text("model_sha256");
  if (sha256.size() != steps.size())
    throw data::Error("{}: /model_sha256: found {} rows, expected {}", path, sha256.size(), steps.size());
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
  return record;
}

}  // namespace routescope::analysis
