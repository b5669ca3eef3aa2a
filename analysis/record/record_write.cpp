#include "analysis/record/record_write.h"

#include <algorithm>
#include <numeric>

#include "analysis/record/record_fields.h"
#include "analysis/routes/route_sets.h"
#include "analysis/writers/writers.h"
#include "data/base/build.h"
#include "data/records/probe_documents.h"

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
  if (const std::string& sha256 = record.identity.preregistration_sha256; !sha256.empty())
    file.set("preregistration_sha256", sha256);
  if (const TaskOrigin& task = record.identity.task; record.identity.tokens.is_task()) {
    file.set("task", task.name);
    file.set("task_sha256", task.sha256);
    file.set("task_direction", to_string(task.direction));
  }
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
  file.write("reader", reader_names(plan),
             {.description = "any read, also one that is not routed", .axes = {"reader"}});
  file.write("writer", writer_names(plan),
             {.description = "the embedding, or layer.sublayer that writes", .axes = {"writer"}});
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
  if (!identity.settings.sets.empty() || sets.empty()) return;
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

void write_answers(data::hdf5::File& file, const ProbeTokens& tokens) {
  std::vector<std::int32_t> position, distractor;
  for (const Answer& answer : tokens.answers) {
    position.push_back(static_cast<std::int32_t>(answer.position));
    distractor.push_back(answer.distractor);
  }
  file.write(
      "answer_position", position, {tokens.sequences},
      {.units = "1",
       .description = "position of the prompt's last token; the token behind it is the answer, the rest is padding",
       .axes = {"seq"}});
  file.write("answer_distractor", distractor, {tokens.sequences},
             {.units = "1", .description = "the distractor's id; -1: none", .axes = {"seq"}});
}

void write_tokens(data::hdf5::File& file, const ProbeIdentity& identity) {
  const auto write = [&](const std::string& name, const ProbeTokens& tokens, const std::string& description) {
    file.write(name, tokens.ids, {tokens.sequences, tokens.positions},
               {.units = "1", .description = description, .axes = {"seq", "pos"}, .deflate = deflate})
        .set("origin", tokens.origin);
  };
  write("probe_tokens", identity.tokens, "the tokens that all of it is measured on");
  const data::RecordField& documents = data::probe_document_field();
  file.write(documents.path, data::stored_documents(identity.tokens.documents, identity.tokens.sequences),
             {identity.tokens.sequences}, data::layout_of(documents));
  if (identity.patch.sequences > 0)
    write("patch_tokens", identity.patch, "the aligned tokens whose routing the ablation `patch` takes");
  if (identity.tokens.is_task()) write_answers(file, identity.tokens);
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

/// A dataset [step, axes...]: the field of all rows.
data::hdf5::Dataset write_rows_of(data::hdf5::File& file, const RecordGroup& group, const ProbeField& field,
                                  const std::vector<const ProbeRow*>& rows, const data::AxisLengths& axes) {
  std::vector<double> values;
  for (const ProbeRow* row : rows) {
    const std::vector<double> own = row_values(group, field, *row, data::row_size(field, axes));
    values.insert(values.end(), own.begin(), own.end());
  }
  data::hdf5::Shape shape = data::shape_of(field, axes);
  shape.insert(shape.begin(), std::ssize(rows));
  data::hdf5::Layout layout = data::layout_of(field, {"step"});
  if (field.axes.size() > 1) layout.deflate = deflate;
  data::RecordField placed = field;
  placed.path = group.path_of(field);
  return data::write_field(file, placed, values, shape, layout);
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
    data::AxisLengths axes = record_axes(record.identity);
    std::vector<const ProbeRow*> rows = all;
    if (group.has) {
      std::erase_if(rows, [&](const ProbeRow* row) { return !group.has(*row); });
      if (rows.empty()) continue;
      write_steps(file, group.path + "/step", rows);
    }
    if (group.has_checks()) {
      for (const ProbeRow* row : rows) axes["check"] = std::max(axes["check"], std::ssize(row->atlas.checked));
      file.write(group.path + "/check", counting(axes["check"]), {axes["check"]},
                 {.units = "1", .description = "number of a route that was really masked", .axes = {"check"}});
    }
    for (const ProbeField& field : group.fields) {
      data::hdf5::Dataset dataset = write_rows_of(file, group, field, rows, axes);
      if (group.path.empty()) set_attributes(dataset, group.attributes);
    }
    if (!group.path.empty()) {
      data::hdf5::Group made = file.group(group.path);
      set_attributes(made, group.attributes);
    }
  }
}

}  // namespace

void write_record(data::hdf5::File& file, const AnalysisRecord& record) {
  write_root(file, record);
  write_axes(file, record.identity);
  write_sets(file, record.identity);
  write_tokens(file, record.identity);
  write_rows(file, record);
}

}  // namespace routescope::analysis
