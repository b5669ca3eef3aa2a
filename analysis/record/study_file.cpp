#include "analysis/record/study_file.h"

#include <algorithm>
#include <numeric>

#include "analysis/record/record_fields.h"
#include "analysis/record/record_findings.h"
#include "analysis/routes/slices.h"
#include "analysis/writers/writers.h"
#include "data/base/build.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/records/probe_documents.h"

namespace routescope::analysis {
namespace {

constexpr const char* filetype = "routescope study";
constexpr std::int64_t version_major = 2, version_minor = 1;

using Names = std::vector<std::string>;

void write_root(data::hdf5::File& file, const Study& study) {
  const ProbeIdentity& identity = study.runs.front().record.identity;
  file.set("filetype", filetype);
  file.set("version", std::vector<std::int64_t>{version_major, version_minor});
  file.set("routescope_version", data::routescope_version());
  if (const std::string commit = data::git_commit(); !commit.empty()) file.set("git_commit", commit);
  file.set("created", now());
  file.set("about", study.about);
  file.set("model_config", identity.model_config);
  file.set("settings", to_json(identity.settings));
  if (!identity.preregistration_sha256.empty()) file.set("preregistration_sha256", identity.preregistration_sha256);
}

/// Datasets [run].
std::vector<data::RowField<StudyRun>> run_fields() {
  using data::field_of;
  return {field_of("seed", {}, "1", "run.seed of the configuration; -1: not known", &StudyRun::seed),
          field_of("trained_steps", {}, "1", "steps of training; 0: not known", &StudyRun::trained_steps),
          field_of("tokens_seen", {}, "1", "tokens trained on; 0: not known", &StudyRun::tokens_seen),
          field_of("train_loss", {}, "nat/token", "of the last step of training", &StudyRun::train_loss),
          field_of("valid_loss", {}, "nat/token", "of the last validation", &StudyRun::valid_loss)};
}

void write_runs(data::hdf5::File& file, const Study& study) {
  Names name;
  for (const StudyRun& run : study.runs) name.push_back(run.name);
  file.write("run", name, {.description = "name of the run's directory", .axes = {"run"}});
  data::write_fields<StudyRun>(file, run_fields(), study.runs, {}, "run");
}

/// Numbers from 0 along an axis.
void write_counts(data::hdf5::Group& at, const std::string& axis, std::int64_t length, const char* description) {
  std::vector<std::int32_t> number(static_cast<std::size_t>(length));
  std::iota(number.begin(), number.end(), 0);
  at.write(axis, number, {length}, {.units = "1", .description = description, .axes = {axis}});
}

/// What every sequence is, so that each interval can be computed again.
void write_tokens(data::hdf5::Group& at, const ProbeTokens& tokens) {
  data::hdf5::Layout layout{
      .units = "1", .description = "the tokens that all of it is measured on", .axes = {"seq", "pos"}};
  layout.deflate = 9;
  at.write("probe_tokens", tokens.ids, {tokens.sequences, tokens.positions}, layout).set("origin", tokens.origin);
}

/// The axes that fields and findings of records like these lie on, and the documents of the probe sequences.
void write_axes(data::hdf5::Group& at, const ProbeIdentity& identity, const std::vector<std::int64_t>& steps) {
  const model::ReadPlan plan = identity.plan();
  at.write("step", steps, {std::ssize(steps)},
           {.units = "1", .description = "training step of the probed models", .axes = {"step"}});
  write_counts(at, "seq", identity.tokens.sequences, "probe sequence, from 0");
  write_counts(at, "pos", identity.tokens.positions, "token of a sequence, from 0");
  Names reads, family, sublayer, depth;
  for (int r = 0; r < plan.num_routed(); ++r) reads.push_back(plan.reads[static_cast<std::size_t>(r)].name);
  for (const Slice& slice : make_slices(plan)) {
    family.push_back(to_string(slice.family));
    sublayer.push_back(to_string(slice.sublayer));
    depth.push_back(to_string(slice.depth));
  }
  const auto labels = [&](const std::string& name, const Names& values, const char* axis, const char* description) {
    at.write(name, values, {.description = description, .axes = {axis}});
  };
  labels("slice", identity.sets, "slice", "family.sublayer.depth");
  labels("family", family, "slice", "source family of the slice");
  labels("sublayer", sublayer, "slice", "sublayer kind of the slice's reads");
  labels("depth", depth, "slice", "third of the model that the slice's layers lie in");
  labels("read", reads, "read", "layer.sublayer that the read feeds");
  labels("source", plan.columns, "source", "column of a read's sources");
  labels("reader", reader_names(plan), "reader", "any read, also one that is not routed");
  labels("writer", writer_names(plan), "writer", "the embedding, or layer.sublayer that writes");
  const std::int64_t sequences = identity.tokens.sequences;
  const data::RecordField& documents = data::probe_document_field();
  at.write(documents.path.substr(1), data::stored_documents(identity.tokens.documents, sequences), {sequences},
           data::layout_of(documents));
  labels("bound", {"lower", "upper"}, "bound", "ends of an interval");
  for (const TokenClasses& classes : identity.classes)
    labels(class_axis(classes), classes.labels, class_axis(classes).c_str(), "classes of predicted tokens");
}

/// Routes that a row of any of the records really masked.
std::int64_t most_checked(std::span<const AnalysisRecord* const> records) {
  std::int64_t most = 0;
  for (const AnalysisRecord* record : records) {
    for (const ProbeRow& row : record->rows) most = std::max(most, std::ssize(row.atlas.checked));
  }
  return most;
}

/// A group of fields at `at`, each with the leading axes (run and step, or step alone) before its own.
void write_group(data::hdf5::Group& at, const RecordGroup& group, std::span<const AnalysisRecord* const> records,
                 const Names& leading) {
  data::AxisLengths axes = record_axes(records.front()->identity);
  axes["run"] = std::ssize(records);
  axes["step"] = std::ssize(records.front()->rows);
  axes["check"] = most_checked(records);
  data::hdf5::Group made = group.path.empty() ? data::hdf5::Group() : at.create_group(group.path);
  data::hdf5::Group& place = group.path.empty() ? at : made;
  if (group.has_checks()) {
    write_counts(place, "check", axes["check"], "number of a route that was really masked");
  }
  for (const ProbeField& field : group.fields) {
    std::vector<double> values;
    for (const AnalysisRecord* record : records) {
      for (const ProbeRow& row : record->rows) {
        std::vector<double> own = field.get(row);
        own.resize(static_cast<std::size_t>(data::row_size(field, axes)), data::missing_value(data::hdf5::Type::f32));
        values.insert(values.end(), own.begin(), own.end());
      }
    }
    data::RecordField stored = field;
    stored.type = data::hdf5::Type::f32;
    stored.axes.insert(stored.axes.begin(), leading.begin(), leading.end());
    data::hdf5::Layout layout = data::layout_of(stored);
    // Chunks cost two kilobytes a dataset, more than deflating the small ones gains.
    if (field.axes.size() > 1) layout.deflate = 9;
    data::hdf5::Dataset dataset = data::write_field(place, stored, values, data::shape_of(stored, axes), layout);
    if (group.path.empty()) set_attributes(dataset, group.attributes);
  }
  if (!group.path.empty()) set_attributes(made, group.attributes);
}

void write_records(data::hdf5::Group& at, std::span<const AnalysisRecord* const> records, const Names& leading) {
  for (const RecordGroup& group : record_groups(records.front()->identity)) {
    const bool any = !group.has || std::any_of(records.begin(), records.end(), [&](const AnalysisRecord* record) {
      return std::any_of(record->rows.begin(), record->rows.end(), group.has);
    });
    if (any) write_group(at, group, records, leading);
  }
}

/// What the intervals of motifs are where they are those of all runs.
void say_pooled(data::hdf5::Group& pooled, std::size_t runs) {
  const Names groups = pooled.names();
  if (std::find(groups.begin(), groups.end(), "motif") == groups.end()) return;
  for (const std::string& motif : pooled.group("motif").names()) {
    pooled.group("motif/" + motif)
        .set("interval",
             fmt::format("{:g} %, pointwise: of curves, Student's t for the mean over documents and {} "
                         "runs, both drawn; of onsets and lead, percentiles of {} resamples of the documents "
                         "and of the weights of the runs",
                         100 * interval_level, runs, findings_resamples));
  }
}

/// The sets are the 18 slices, in their order.
void expect_slices(const AnalysisRecord& record, const std::string& name) {
  const Names& sets = record.identity.sets;
  for (std::size_t s = 0; s < std::max<std::size_t>(sets.size(), num_slices); ++s) {
    if (s < sets.size() && s < num_slices && sets[s] == slice_name(s)) continue;
    throw data::Error("{}: found probes of {} sets of routes, the one of index {} {}, expected the {} slices", name,
                      sets.size(), s, s < sets.size() ? "named " + sets[s] : "missing", num_slices);
  }
}

void expect_runs(const Study& study) {
  for (const StudyRun& run : study.runs) {
    for (const StudyRun& other : study.runs) {
      if (&other == &run) break;
      if (other.name == run.name)
        throw data::Error("compare: found two runs named '{}', expected different names", run.name);
    }
    if (run.record.rows.empty())
      throw data::Error("{}: found no probed step, expected probes of the run (routescope-analyze track)", run.name);
    expect_slices(run.record, run.name);
  }
  if (!study.not_pooled.empty()) throw data::Error("compare: the runs cannot be pooled: {}", study.not_pooled);
}

void expect_baseline(const Study& study) {
  if (study.baselines.empty()) return;
  if (study.baselines.size() > 1)
    throw data::UsageError("compare: found {} baselines, expected one at most", study.baselines.size());
  const ProbeTokens &own = study.baselines.front().record.identity.tokens,
                    &others = study.runs.front().record.identity.tokens;
  if (own.ids != others.ids)
    throw data::Error("{}: was probed on other tokens ({}) than the runs ({})", study.baselines.front().name,
                      own.origin, others.origin);
  expect_slices(study.baselines.front().record, study.baselines.front().name);
}

}  // namespace

void write_study(const Study& study, const std::filesystem::path& file) {
  expect_runs(study);
  expect_baseline(study);
  data::write_atomically(file, [&](const std::filesystem::path& partial) {
    data::hdf5::File out = data::hdf5::File::create(partial);
    const ProbeIdentity& identity = study.runs.front().record.identity;
    write_root(out, study);
    write_runs(out, study);
    write_axes(out, identity, study.findings().step);
    write_tokens(out, identity.tokens);
    std::vector<const AnalysisRecord*> records;
    for (const StudyRun& run : study.runs) {
      records.push_back(&run.record);
      data::hdf5::Group own = out.create_group("runs/" + run.name);
      write_findings(own, identity, run.findings);
    }
    write_records(out, records, {"run", "step"});
    {
      data::hdf5::Group pooled = out.create_group("pooled");
      write_findings(pooled, identity, study.findings());
      say_pooled(pooled, study.runs.size());
    }
    if (!study.baselines.empty()) {
      const AnalysisRecord* record = &study.baselines.front().record;
      data::hdf5::Group baseline = out.create_group("baseline");
      baseline.set("model_config", record->identity.model_config);
      baseline.set("settings", to_json(record->identity.settings));
      write_axes(baseline, record->identity, {record->rows.front().step});
      write_records(baseline, {&record, 1}, {"step"});
    }
    out.close();
  });
}

}  // namespace routescope::analysis
