// Writing analysis.h5 (data/formats/analysis.md): labels and tokens, then every dataset of record_fields.h.
#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "analysis/findings/findings.h"
#include "analysis/record/record_fields.h"
#include "analysis/record/settings.h"
#include "analysis/routes/route_sets.h"
#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::analysis {
namespace {

constexpr int deflate = 4;

using Names = std::vector<std::string>;

std::vector<std::int32_t> counting(std::int64_t count) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

void write_root(data::hdf5::File& file, const AnalysisRecord& record) {
  file.set("filetype", analysis_filetype);
  file.set("version", std::vector<std::int64_t>{analysis_version_major, analysis_version_minor});
  file.set("routescope_version", data::routescope_version());
  if (const std::string commit = data::git_commit(); !commit.empty()) file.set("git_commit", commit);
  file.set("created", record.created);
  file.set("model_config", record.identity.model_config);
  file.set("settings", to_json(record.identity.settings));
  std::string classes;  // in the order of the rows' values
  for (const TokenClasses& one : record.identity.classes) classes += (classes.empty() ? "" : " ") + one.name;
  file.set("token_classes", classes);
}

void write_axes(data::hdf5::File& file, const ProbeIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  file.write("slice", identity.sets, {.description = "what is ablated: a set of routes", .axes = {"slice"}});
  file.write("seq", counting(identity.tokens.sequences), {identity.tokens.sequences},
             {.units = "1", .description = "probe sequence, from 0", .axes = {"seq"}});
  file.write("pos", counting(identity.tokens.positions), {identity.tokens.positions},
             {.units = "1", .description = "token of a sequence, from 0", .axes = {"pos"}});
  file.write("bound", Names{"lower", "upper"}, {.description = "ends of an interval", .axes = {"bound"}});
  Names reads;
  for (int r = 0; r < plan.num_routed(); ++r) reads.push_back(plan.reads[static_cast<std::size_t>(r)].name);
  file.write("read", reads, {.description = "layer.sublayer that the read feeds", .axes = {"read"}});
  file.write("source", plan.columns, {.description = "column of a read's sources", .axes = {"source"}});
  for (const TokenClasses& classes : identity.classes) {
    file.write(class_axis(classes), classes.labels,
               {.description = "classes of predicted tokens", .axes = {class_axis(classes)}});
  }
}

/// Which routes every set is, and what the 18 slices are called by.
void write_sets(data::hdf5::File& file, const ProbeIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  const std::vector<RouteSet> sets = route_sets(identity.settings.sets, plan);
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  std::vector<std::uint8_t> member(sets.size() * reads * columns, 0);
  for (std::size_t s = 0; s < sets.size(); ++s) {
    for (const auto& [read, column] : sets[s].routes)
      member[(s * reads + static_cast<std::size_t>(read)) * columns + static_cast<std::size_t>(column)] = 1;
  }
  file.write("route", member, {std::ssize(sets), plan.num_routed(), plan.num_columns()},
             {.units = "1",
              .description = "1: the route (read, source) belongs to the set",
              .axes = {"slice", "read", "source"},
              .deflate = deflate});
  if (!identity.settings.sets.empty()) return;
  Names family, sublayer, depth;
  for (const Slice& slice : make_slices(plan)) {
    family.push_back(to_string(slice.family));
    sublayer.push_back(to_string(slice.sublayer));
    depth.push_back(to_string(slice.depth));
  }
  file.write("family", family, {.description = "source family of the slice", .axes = {"slice"}});
  file.write("sublayer", sublayer, {.description = "sublayer kind of the slice's reads", .axes = {"slice"}});
  file.write("depth", depth, {.description = "third of the model that the slice's layers lie in", .axes = {"slice"}});
}

void write_tokens(data::hdf5::File& file, const ProbeIdentity& identity) {
  const auto write = [&](const std::string& name, const ProbeTokens& tokens, const std::string& description) {
    file.write(name, tokens.ids, {tokens.sequences, tokens.positions},
               {.units = "1", .description = description, .axes = {"seq", "pos"}, .deflate = deflate})
        .set("origin", tokens.origin);
  };
  write("probe_tokens", identity.tokens, "the tokens that all of it is measured on");
  if (identity.patch.sequences > 0)
    write("patch_tokens", identity.patch, "the aligned tokens whose routing the ablation `patch` takes");
  const std::int64_t positions = identity.tokens.positions;
  for (const TokenClasses& classes : identity.classes) {
    std::vector<std::int32_t> of_token;  // the first token of a sequence is not predicted
    for (std::size_t i = 0; i < classes.of_token.size(); ++i) {
      if (static_cast<std::int64_t>(i) % (positions - 1) == 0) of_token.push_back(-1);
      of_token.push_back(classes.of_token[i]);
    }
    file.write("token_" + classes.name, of_token, {identity.tokens.sequences, positions},
               {.units = "1",
                .description = "class of each predicted token, in " + class_axis(classes) + "; -1: none",
                .axes = {"seq", "pos"},
                .deflate = deflate});
  }
}

void set_attributes(data::hdf5::Object& object, const RecordAttributes& attributes) {
  for (const auto& [name, value] : attributes)
    std::visit([&, &key = name](const auto& one) { object.set(key, one); }, value);
}

/// The field of all rows as it is stored.
std::vector<double> gather(const RecordField& field, const std::string& path, const std::vector<const ProbeRow*>& rows,
                           std::size_t width) {
  const double missing = field.type == data::hdf5::Type::f64   ? std::numeric_limits<double>::quiet_NaN()
                         : field.type == data::hdf5::Type::i32 ? -1
                                                               : 0;
  std::vector<double> out;
  for (const ProbeRow* row : rows) {
    std::vector<double> values = field.get(*row);
    if (values.size() > width || (values.size() < width && !values.empty() && !field.padded)) {
      throw std::logic_error(
          fmt::format("{} of step {}: found {} values, expected {}", path, row->step, values.size(), width));
    }
    values.resize(width, missing);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

template <class T>
std::vector<T> as(const std::vector<double>& values) {
  std::vector<T> out;
  for (double value : values) out.push_back(static_cast<T>(value));
  return out;
}

data::hdf5::Dataset write_field(data::hdf5::File& file, const RecordGroup& group, const RecordField& field,
                                const std::vector<const ProbeRow*>& rows,
                                const std::map<std::string, std::int64_t>& axes) {
  const std::string path = group.path.empty() ? field.name : group.path + "/" + field.name;
  data::hdf5::Layout layout{.units = field.units, .description = field.description, .axes = {"step"}, .deflate = 0};
  data::hdf5::Shape shape{std::ssize(rows)};
  std::size_t width = 1;
  for (const std::string& axis : field.axes) {
    layout.axes.push_back(axis);
    shape.push_back(axes.at(axis));
    width *= static_cast<std::size_t>(axes.at(axis));
  }
  if (field.axes.size() > 1) layout.deflate = deflate;
  const std::vector<double> values = gather(field, path, rows, width);
  if (field.type == data::hdf5::Type::i32) return file.write(path, as<std::int32_t>(values), shape, layout);
  if (field.type == data::hdf5::Type::u8) return file.write(path, as<std::uint8_t>(values), shape, layout);
  return file.write(path, values, shape, layout);
}

void write_steps(data::hdf5::File& file, const std::string& path, const std::vector<const ProbeRow*>& rows) {
  std::vector<std::int64_t> step;
  for (const ProbeRow* row : rows) step.push_back(row->step);
  file.write(path, step, {std::ssize(rows)},
             {.units = "1", .description = "training step of the probed model; 0 for a bare model", .axes = {"step"}});
}

void write_rows(data::hdf5::File& file, const AnalysisRecord& record) {
  std::vector<const ProbeRow*> all;
  Names sha256;
  for (const ProbeRow& row : record.rows) {
    all.push_back(&row);
    sha256.push_back(row.model_sha256);
  }
  write_steps(file, "step", all);
  file.write("model_sha256", sha256, {.description = "SHA-256 of the probed model.safetensors", .axes = {"step"}});
  for (const RecordGroup& group : record_groups(record.identity)) {
    std::map<std::string, std::int64_t> axes = record_axes(record.identity);
    std::vector<const ProbeRow*> rows = all;
    if (group.has) {
      std::erase_if(rows, [&](const ProbeRow* row) { return !group.has(*row); });
      if (rows.empty()) continue;
      write_steps(file, group.path + "/step", rows);
      for (const ProbeRow* row : rows) axes["check"] = std::max(axes["check"], std::ssize(row->atlas.checked));
      file.write(group.path + "/check", counting(axes["check"]), {axes["check"]},
                 {.units = "1", .description = "number of a route that was really masked", .axes = {"check"}});
    }
    for (const RecordField& field : group.fields) {
      data::hdf5::Dataset dataset = write_field(file, group, field, rows, axes);
      if (group.path.empty()) set_attributes(dataset, group.attributes);
    }
    if (!group.path.empty()) {
      data::hdf5::Group made = file.group(group.path);
      set_attributes(made, group.attributes);
    }
  }
}

}  // namespace

void AnalysisRecord::save(const std::filesystem::path& file) {
  if (created.empty()) created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  const Findings findings = rows.empty() ? Findings{} : routescope::analysis::find(*this);
  data::write_atomically(file, [&](const std::filesystem::path& partial) {
    data::hdf5::File out = data::hdf5::File::create(partial);
    write_root(out, *this);
    write_axes(out, identity);
    write_sets(out, identity);
    write_tokens(out, identity);
    write_rows(out, *this);
    if (!rows.empty()) write_findings(out, identity, findings);
    out.close();
  });
}

}  // namespace routescope::analysis
