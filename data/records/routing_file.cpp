#include "data/records/routing_file.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <fstream>
#include <numeric>
#include <optional>
#include <random>

#include "data/base/build.h"
#include "data/base/error.h"
#include "data/hdf5/chunks.h"
#include "data/records/probe_documents.h"
#include "data/records/routing_table.h"

namespace routescope::data::routing_format {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Layout;
using hdf5::Shape;
using hdf5::Type;

namespace {

// ---- fields ---------------------------------------------------------------------------------------------------------

const RecordField read_field{"/read", {"read"}, "", "name of the read: LAYER.SUBLAYER, or final", Type::text};
const RecordField layer_field{"/layer", {"read"}, "1", "layer of the read, from 0; -1 for the final read", Type::i32};
const RecordField sublayer_field{"/sublayer", {"read"}, "", "what the read feeds: attn, mlp or final", Type::text};
const RecordField depth_field{
    "/depth", {"read"}, "", "third of the depth the read's layer is in: early, mid or late", Type::text};
const RecordField source_field{
    "/source", {"source"}, "", "name of the source: embedding, block_1 ..., current", Type::text};
const RecordField seq_field{"/seq", {"seq"}, "1", "number of the probe sequence, from 0", Type::i32};
const RecordField pos_field{"/pos", {"pos"}, "1", "position within a probe sequence, from 0", Type::i32};
const RecordField d_field{"/d", {"d"}, "1", "channel of the residual stream, from 0", Type::i32};
const RecordField tokens_field{
    "/probe_tokens", {"seq", "pos"}, "token id", "the held-out tokens that every snapshot is measured on", Type::i32};
const RecordField id_field{"/id", {}, "1", "random number that ties the journal to this file", Type::i64};

RecordField step_field(const std::string& path, const std::string& description) {
  return {path, {}, "step", description, Type::i64};
}

RecordField checksum_field(const std::string& path, const std::string& description = "CRC-32 of the row") {
  return {path, {}, "1", description, Type::i64};
}

template <class Row>
std::vector<RecordField> fields_of(const std::vector<RowField<Row>>& fields) {
  return {fields.begin(), fields.end()};
}

// ---- making a file --------------------------------------------------------------------------------------------------

std::string now_utc() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

// The number of each place along an axis.
void write_index(File& file, const RecordField& field, std::int64_t length) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(length));
  std::iota(index.begin(), index.end(), 0);
  file.write(field.path, index, {length}, layout_of(field));
}

void create_axes(File& file, const RoutingRecordInfo& info) {
  file.write(read_field.path, info.reads, layout_of(read_field));
  file.write(layer_field.path, info.layer, {std::ssize(info.reads)}, layout_of(layer_field));
  file.write(sublayer_field.path, info.sublayer, layout_of(sublayer_field));
  file.write(depth_field.path, info.depth, layout_of(depth_field));
  file.write(source_field.path, info.sources, layout_of(source_field));
  write_index(file, seq_field, info.sequences);
  write_index(file, pos_field, info.positions);
  write_index(file, d_field, info.hidden_size);
  file.write(tokens_field.path, info.probe_tokens, {info.sequences, info.positions}, layout_of(tokens_field));
  file.write(probe_document_field().path, stored_documents(info.probe_documents, info.sequences), {info.sequences},
             layout_of(probe_document_field()));
}

// How /alpha is stored. One read of one step is read at a time, so a chunk holds nothing else; up to 512 Ki weights
// (1 MiB).
void set_storage(Layout& layout, const RoutingRecordInfo& info) {
  const auto at_least_one = [](std::int64_t length) { return std::max<std::int64_t>(length, 1); };
  constexpr std::int64_t chunk_weights = 512 * 1024;
  const std::int64_t sources = at_least_one(std::ssize(info.sources));
  const std::int64_t pos = std::clamp<std::int64_t>(chunk_weights / sources, 1, at_least_one(info.positions));
  const std::int64_t seq = std::clamp<std::int64_t>(chunk_weights / (pos * sources), 1, at_least_one(info.sequences));
  layout.deflate = 1;
  layout.chunk = {1, 1, seq, pos, sources};
}

void create_table(File& file, const TableFields& table, const RoutingRecordInfo& info) {
  const AxisLengths lengths = axis_lengths(info);
  const std::vector<std::string> axis{table.axis()};
  file.create_growing(table.step.path, table.step.type, {}, layout_of(table.step, axis));
  for (const RecordField& field : table.columns) {
    Layout layout = layout_of(field, axis);
    if (table.chunked) set_storage(layout, info);
    file.create_growing(field.path, field.type, shape_of(field, lengths), layout);
  }
  file.create_growing(table.checksum.path, table.checksum.type, {}, layout_of(table.checksum, axis));
}

// A random number in a place of the file that never changes.
JournalMark create_mark(File& file) {
  std::random_device random;
  const std::vector<std::int64_t> id{
      static_cast<std::int64_t>((static_cast<std::uint64_t>(random()) << 32) | random())};
  const Dataset data = file.write(id_field.path, id, {}, layout_of(id_field));
  JournalMark out;
  std::memcpy(out.id.data(), id.data(), out.id.size());
  out.address = hdf5::file_address(data);
  return out;
}

// CRC-32 of everything that read_info() returns. An older file has no documents.
std::int64_t checksum_of(const RoutingRecordInfo& info, bool has_documents) {
  RowChecksum sum;
  for (const auto* labels : {&info.reads, &info.sublayer, &info.depth, &info.sources})
    for (const std::string& label : *labels) sum.add(label + '\n');
  sum.add(info.layer);
  sum.add(std::array{info.hidden_size, info.sequences, info.positions});
  sum.add(info.probe_tokens);
  if (has_documents) sum.add(stored_documents(info.probe_documents, info.sequences));
  sum.add(info.config);
  sum.add(info.git_commit);
  return sum.value();
}

void expect_size(const char* what, std::size_t found, std::size_t expected) {
  if (found != expected) throw Error("routing record: {} has {} entries, expected {}", what, found, expected);
}

// Whether the file holds a step after the last that its journal knows: the journal was cut, or the writer has just
// written one and not yet the other. Room for further steps is zeros.
bool is_behind(const std::filesystem::path& file, const File& journaled) {
  Tables tables(journaled);
  for (const Table* table : tables.all()) {
    const Shape chunks = chunk_shape(table->step);
    if (chunks.empty()) continue;
    const std::int64_t rows = table->step.rows(), chunk = chunks[0];
    if (rows % chunk == 0) continue;
    const std::int64_t address = stored_chunk(table->step, {rows - rows % chunk}).address;
    std::ifstream in(file, std::ios::binary);
    in.seekg(address + (rows % chunk) * element_bytes(table->step));
    std::int64_t next = 0;
    if (in.read(reinterpret_cast<char*>(&next), sizeof next) && next != 0) return true;
  }
  return false;
}

}  // namespace

const std::array<TableFields, 4>& table_fields() {
  static const std::array<TableFields, 4> tables{{
      {step_field("/step", "optimizer steps done before the routing snapshot"), fields_of(snapshot_fields()),
       checksum_field("/crc32")},
      {step_field("/alpha_step", "steps at which weights were kept per token"),
       {{"/alpha",
         {"read", "seq", "pos", "source"},
         "1",
         "routing weight of every probe token; NaN: no such source",
         Type::f16}},
       checksum_field("/alpha_crc32", "CRC-32 of the row as it is stored"),
       true},
      {step_field("/train/step", "number of the step, 1 after the first update"), fields_of(train_fields()),
       checksum_field("/train/crc32")},
      {step_field("/valid/step", "optimizer steps done before the validation"), fields_of(valid_fields()),
       checksum_field("/valid/crc32")},
  }};
  return tables;
}

AxisLengths axis_lengths(const RoutingRecordInfo& info) {
  return {{"read", std::ssize(info.reads)},
          {"source", std::ssize(info.sources)},
          {"seq", info.sequences},
          {"pos", info.positions},
          {"d", info.hidden_size}};
}

JournalMark create(File& file, const RoutingRecordInfo& info, const std::string& created) {
  expect_size("layer", info.layer.size(), info.reads.size());
  expect_size("sublayer", info.sublayer.size(), info.reads.size());
  expect_size("depth", info.depth.size(), info.reads.size());
  expect_size("probe_tokens", info.probe_tokens.size(), static_cast<std::size_t>(info.sequences * info.positions));
  if (!info.probe_documents.empty())
    expect_size("probe_documents", info.probe_documents.size(), static_cast<std::size_t>(info.sequences));
  file.set("filetype", filetype);
  file.set("version", std::vector<std::int64_t>{routing_version_major, routing_version_minor});
  file.set("routescope_version", routescope_version());
  file.set("git_commit", info.git_commit);
  file.set("created", created.empty() ? now_utc() : created);
  file.set("config", info.config);
  create_axes(file, info);
  for (const TableFields& table : table_fields()) create_table(file, table, info);
  file.set("fixed_crc32", checksum_of(info, true));
  const JournalMark mark = create_mark(file);
  file.flush();
  file.journal_values(false);
  return mark;
}

RoutingRecordInfo read_info(const File& file) {
  if (!file.has("filetype") || file.text("filetype") != filetype)
    throw Error("{}@filetype: {}, expected \"{}\"", file.where(),
                file.has("filetype") ? '"' + file.text("filetype") + '"' : "absent", filetype);
  const auto version = file.integers("version");
  if (version.empty() || version[0] != routing_version_major)
    throw Error("{}@version: {}, expected {}", file.where(), version.empty() ? -1 : version[0], routing_version_major);
  RoutingRecordInfo info;
  const auto length = [&](const RecordField& axis) { return file.dataset(axis.path).rows(); };
  const Shape reads{length(read_field)}, sources{length(source_field)};
  info.reads = checked_dataset(file, read_field, reads).read_text();
  info.layer = checked_dataset(file, layer_field, reads).read<std::int32_t>();
  info.sublayer = checked_dataset(file, sublayer_field, reads).read_text();
  info.depth = checked_dataset(file, depth_field, reads).read_text();
  info.sources = checked_dataset(file, source_field, sources).read_text();
  info.hidden_size = length(d_field);
  info.sequences = length(seq_field);
  info.positions = length(pos_field);
  for (const RecordField* axis : {&d_field, &seq_field, &pos_field}) checked_dataset(file, *axis, {length(*axis)});
  info.probe_tokens = checked_dataset(file, tokens_field, {info.sequences, info.positions}).read<std::int32_t>();
  const bool has_documents = file.exists(probe_document_field().path);
  if (has_documents)
    info.probe_documents =
        read_documents(checked_dataset(file, probe_document_field(), {info.sequences}), info.sequences);
  if (info.reads.empty() != info.sources.empty())
    throw Error("{}: found {} reads and {} sources", file.where(), info.reads.size(), info.sources.size());
  if ((info.sequences == 0) != (info.positions == 0))
    throw Error("{}: {}: found {} sequences of {} tokens", file.where(), tokens_field.path, info.sequences,
                info.positions);
  info.config = file.text("config");
  info.git_commit = file.text("git_commit");
  const std::int64_t checksum = checksum_of(info, has_documents);
  if (file.has("fixed_crc32") && file.integer("fixed_crc32") != checksum)
    throw Error("{}: the labels, probe tokens or configuration are damaged: found CRC-32 {:08x}, expected {:08x}",
                file.where(), checksum, file.integer("fixed_crc32"));
  return info;
}

void with_record(const std::filesystem::path& file, const std::function<void(const File&, bool)>& body) {
  std::optional<File> journaled;
  bool behind = false;
  try {
    if (std::filesystem::exists(file)) journaled = File::open_with_journal(file);
    behind = journaled && is_behind(file, *journaled);
  } catch (const Error&) {  // the journal is damaged
    journaled.reset();
  }
  if (journaled && !behind) return body(*journaled, true);
  try {
    body(File::open(file), false);
  } catch (const Error&) {
    if (!journaled) throw;
    body(*journaled, true);
  }
}

}  // namespace routescope::data::routing_format
