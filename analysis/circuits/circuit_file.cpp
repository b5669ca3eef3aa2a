#include "analysis/circuits/circuit_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/circuits/faithfulness.h"
#include "analysis/record/record.h"
#include "analysis/step_file/step_file.h"
#include "analysis/step_file/step_parts.h"
#include "data/base/files.h"

namespace routescope::analysis {
namespace {

constexpr StepFileFormat format{"routescope circuits", 1, 1};

using data::RowField;
using data::hdf5::Type;
using Field = RowField<CircuitRow>;
using Names = std::vector<std::string>;
using Values = std::vector<double>;

template <class At>
Field field_at(const std::string& path, Names axes, const std::string& units, const std::string& description,
               const At& at) {
  return data::field_at<CircuitRow>(path, std::move(axes), units, description, at);
}

void add_curves(std::vector<Field>& fields) {
  fields.push_back(field_at("scoring_faithfulness", {"k"}, "1",
                            "faithfulness of the first k edges by score, on the scoring half",
                            [](auto& row) { return &row.scoring_faithfulness; }));
  fields.push_back(field_at("loss", {"order", "k", "held_out_seq"}, "nat/token",
                            "what keeping the first k edges of the order adds to the nll",
                            [](auto& row) { return &row.loss; }));
  add_estimates(fields, "faithfulness", {"order", "k"}, "1", "faithfulness of the first k edges of the order",
                &CircuitRow::faithfulness);
  add_estimates(fields, "area", {"order"}, "1", "area under that curve over k / edges", &CircuitRow::area);
  add_estimates(fields, "random_area", {}, "1",
                "mean area of the random orders; its interval counts orders and documents as samples",
                &CircuitRow::random_area);
  add_estimates(fields, "above_magnitude", {}, "1", "area of the order by score minus that by magnitude",
                &CircuitRow::above_magnitude);
  add_estimates(fields, "above_random", {}, "1", "area of the order by score minus random_area",
                &CircuitRow::above_random);
}

void add_circuit(std::vector<Field>& fields) {
  fields.push_back(
      field_at("kept", {"edge"}, "1", "1: the edge belongs to the circuit", [](auto& row) { return &row.kept; }));
  fields.push_back(field_at("kept_loss", {"held_out_seq"}, "nat/token",
                            "what ablating everything but the circuit adds to the nll",
                            [](auto& row) { return &row.kept_loss; }));
  fields.push_back(field_at("rest_loss", {"held_out_seq"}, "nat/token", "what ablating the circuit adds to the nll",
                            [](auto& row) { return &row.rest_loss; }));
  add_estimates(fields, "kept_faithfulness", {}, "1", "faithfulness of the circuit; NaN where there is none",
                &CircuitRow::kept_faithfulness);
  add_estimates(fields, "rest_faithfulness", {}, "1",
                "faithfulness of everything but the circuit (completeness): near 0 where nothing is left",
                &CircuitRow::rest_faithfulness);
  fields.push_back(field_at("drop_loss", {"edge", "held_out_seq"}, "nat/token",
                            "what dropping the edge from the circuit adds to the nll; NaN for an edge outside it",
                            [](auto& row) { return &row.drop_loss; }));
  add_estimates(fields, "drop", {"edge"}, "nat/token", "mean of drop_loss over sequences (minimality)",
                &CircuitRow::drop);
  fields.push_back(field_at("drop_p", {"edge"}, "1", "one-sided p value of no rise, Holm over the circuit's edges",
                            [](auto& row) { return &row.drop_p; }));
  fields.push_back(field_at("needed", {}, "1", "share of the circuit's edges with drop_p below 0.05",
                            [](auto& row) { return &row.needed; }));
}

void write_root(data::hdf5::File& file, const CircuitRecord& record) {
  const CircuitIdentity& identity = record.identity;
  write_root(file, format, record.created, identity.model_config, to_json(identity.settings), identity.tokens);
  file.set("intervention", describe(identity.settings.ablation) + "; means are those of the scoring half");
  file.set("metric",
           "faithfulness: 1 - (nll with the kept edges - nll) / (nll without any edge - nll), each summed over the "
           "held-out sequences");
  file.set("interval", fmt::format("{:g} % over documents: BCa of means; of ratios and areas percentiles of {} "
                                   "resamples with documents - 1 degrees of freedom",
                                   100 * interval_level, ratio_resamples));
}

void write_axes(data::hdf5::File& file, const CircuitIdentity& identity) {
  const model::ReadPlan plan = identity.plan();
  Names edges, reads;
  std::vector<std::int32_t> read, source, held_out;
  for (const Edge& edge : circuit_edges(plan, identity.settings.ablation)) {
    edges.push_back(edge_name(plan, edge));
    read.push_back(edge.first);
    source.push_back(edge.second);
  }
  const auto count = std::ssize(edges);
  for (int r = 0; r < plan.num_routed(); ++r) reads.push_back(plan.reads[static_cast<std::size_t>(r)].name);
  file.write("edge", edges, {.description = "read<-source: an edge", .axes = {"edge"}});
  file.write("read", reads, {.description = "layer.sublayer that the read feeds", .axes = {"read"}});
  file.write("source", plan.columns, {.description = "column of a read's sources", .axes = {"source"}});
  file.write("edge_read", read, {count}, {.units = "1", .description = "its read, from 0", .axes = {"edge"}});
  file.write("edge_source", source, {count}, {.units = "1", .description = "its source, from 0", .axes = {"edge"}});
  file.write("order", order_names(identity.settings),
             {.description = "what edges are ranked by: score, mean norm-weighted mass, or chance", .axes = {"order"}});
  const std::vector<std::int64_t> k = kept_counts(edges.size());
  file.write("k", k, {std::ssize(k)}, {.units = "1", .description = "number of edges that are kept", .axes = {"k"}});
  for (std::size_t q = 0; q < identity.held_out.size(); ++q)
    if (identity.held_out[q]) held_out.push_back(static_cast<std::int32_t>(q));
  file.write("held_out_seq", held_out, {std::ssize(held_out)},
             {.units = "1", .description = "sequences that are reported on", .axes = {"held_out_seq"}});
  write_tokens(file, identity.tokens);
}

data::hdf5::Dataset checked(const data::hdf5::File& file, const std::string& path, Type type,
                            const data::hdf5::Shape& shape) {
  return data::checked_dataset(file, {.path = path, .type = type}, shape);
}

CircuitIdentity read_identity(const data::hdf5::File& file, const std::string& name) {
  const CircuitSettings settings = circuit_settings_from_json(file.text("settings"), name + ": attribute settings");
  try {
    return identify_circuits(model::ModelConfig::parse(file.text("model_config"), "attribute model_config"),
                             read_tokens(file), settings);
  } catch (const data::Error& wrong) {
    throw data::Error("{}: {}", name, wrong.what());
  }
}

/// What follows from the settings and the model stands in the file as it follows.
void expect_axes(const data::hdf5::File& file, const CircuitIdentity& identity, const data::AxisLengths& axes) {
  const auto expect = [&](const char* path, Type type, const char* axis, const auto& expected, const auto& found) {
    if (found != expected)
      throw data::Error("{}: /{}: found other values than follow from the attributes model_config and settings",
                        file.file_state().name, path);
    checked(file, path, type, {axes.at(axis)});
  };
  const model::ReadPlan plan = identity.plan();
  Names edges;
  for (const Edge& edge : circuit_edges(plan, identity.settings.ablation)) edges.push_back(edge_name(plan, edge));
  expect("edge", Type::text, "edge", edges, file.read_text("edge"));
  expect("order", Type::text, "order", order_names(identity.settings), file.read_text("order"));
  expect("k", Type::i64, "k", kept_counts(edges.size()), file.read<std::int64_t>("k"));
  std::vector<std::int32_t> held_out;
  for (std::size_t q = 0; q < identity.held_out.size(); ++q)
    if (identity.held_out[q]) held_out.push_back(static_cast<std::int32_t>(q));
  expect("held_out_seq", Type::i32, "held_out_seq", held_out, file.read<std::int32_t>("held_out_seq"));
}

void expect_meanings(const CircuitRow& row, const std::string& name) {
  const auto odd = std::find_if(row.kept.begin(), row.kept.end(), [](std::uint8_t kept) { return kept > 1; });
  if (odd != row.kept.end())
    throw data::Error("{}: /kept: step {}: found {}, expected 0 or 1", name, row.step, static_cast<int>(*odd));
}

CircuitRecord read_file(const std::filesystem::path& path) {
  const data::hdf5::File file = data::hdf5::File::open(path);
  const std::string& name = file.file_state().name;
  check_format(file, format);
  CircuitRecord record{read_identity(file, name), file.text("created"), {}};
  const data::AxisLengths axes = circuit_axes(record.identity);
  expect_axes(file, record.identity, axes);
  record.rows = read_rows(file, circuit_fields(), axes);
  for (const CircuitRow& row : record.rows) expect_meanings(row, name);
  return record;
}

void write_file(const CircuitRecord& record, const std::filesystem::path& path) {
  data::hdf5::File file = data::hdf5::File::create(path);
  write_root(file, record);
  write_axes(file, record.identity);
  write_rows(file, record.rows, circuit_fields(), circuit_axes(record.identity));
  file.close();
}

constexpr StepFileAccess<CircuitRecord> access{read_file, write_file};

}  // namespace

std::vector<Field> circuit_fields() {
  std::vector<Field> fields{
      field_at("nll", {}, "nat/token", "nll of the intact model", [](auto& row) { return &row.nll; })};
  add_estimates(fields, "none", {}, "nat/token", "what ablating every edge adds to the nll", &CircuitRow::none);
  fields.push_back(field_at("none_p", {}, "1",
                            "one-sided p value of its being 0 or less; from 0.05 on everything relative to it is NaN",
                            [](auto& row) { return &row.none_p; }));
  add_estimates(fields, "score", {"edge"}, "nat/token",
                "what ablating the edge alone adds to the nll of the scoring half, measured or estimated",
                &CircuitRow::score);
  fields.push_back(field_at("magnitude", {"edge"}, "1", "mean norm-weighted mass of the edge, on the scoring half",
                            [](auto& row) { return &row.magnitude; }));
  add_curves(fields);
  add_circuit(fields);
  fields.push_back(field_at("passes", {}, "1", "what it took, in plain passes over all the tokens",
                            [](auto& row) { return &row.passes; }));
  fields.push_back(field_at("seconds", {}, "s", "what it took", [](auto& row) { return &row.seconds; }));
  fields.push_back(field_at("plain_seconds", {}, "s", "what one plain pass over all the tokens took",
                            [](auto& row) { return &row.plain_seconds; }));
  return fields;
}

data::AxisLengths circuit_axes(const CircuitIdentity& identity) {
  const std::size_t edges = circuit_edges(identity.plan(), identity.settings.ablation).size();
  return {{"edge", static_cast<std::int64_t>(edges)},
          {"k", std::ssize(kept_counts(edges))},
          {"order", std::ssize(order_names(identity.settings))},
          {"held_out_seq", std::count(identity.held_out.begin(), identity.held_out.end(), std::uint8_t{1})},
          {"bound", 2}};
}

std::string circuit_name(const std::string& task) {
  return task.empty() ? "circuit.h5" : fmt::format("circuit-task-{}.h5", task);
}

bool circuits_exist(const std::filesystem::path& file) {
  return has_rows(file);
}

CircuitRecord load_circuits(const std::filesystem::path& file) {
  return load_rows(file, access);
}

void add_circuit(const std::filesystem::path& file, const CircuitIdentity& identity, const CircuitRow& row) {
  add_row(file, identity, row, access);
}

void join_circuits(const std::filesystem::path& file) {
  join_rows(file, access);
}

void save_circuits(CircuitRecord& record, const std::filesystem::path& file) {
  if (record.created.empty()) record.created = now();
  data::write_atomically(file, [&](const std::filesystem::path& partial) { write_file(record, partial); });
}

CircuitRecord open_circuits(const std::filesystem::path& file, const CircuitIdentity& identity) {
  if (!circuits_exist(file)) return {identity, {}, {}};
  CircuitRecord record = load_circuits(file);
  if (const std::string difference = difference_of(record.identity, identity); !difference.empty())
    throw data::Error("{}: {}: name another file with --out, or remove this one", file.string(), difference);
  return record;
}

std::string difference_of(const CircuitIdentity& found, const CircuitIdentity& expected) {
  if (found.settings != expected.settings)
    return fmt::format("attribute settings: found {}, expected {}", to_json(found.settings),
                       to_json(expected.settings));
  if (found.model_config != expected.model_config)
    return fmt::format("attribute model_config: found {}, expected {}", found.model_config, expected.model_config);
  return difference_of(found.tokens, expected.tokens);
}

}  // namespace routescope::analysis
