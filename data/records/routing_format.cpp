// What routing.h5 consists of: every path with its shape, units, description and axes.
#include "data/records/routing_format.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>

#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/records/routing_rows.h"

namespace routescope::data::routing_format {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Layout;
using hdf5::Shape;
using hdf5::Type;

namespace {

std::string now_utc() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text.data();
}

void write_index(File& file, const std::string& name, std::int64_t length, const std::string& description) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(length));
  std::iota(index.begin(), index.end(), 0);
  file.write(name, index, {length}, {"1", description, {name}});
}

void create_axes(File& file, const RoutingRecordInfo& info) {
  const auto reads = static_cast<std::int64_t>(info.reads.size());
  file.write("/read", info.reads, {"", "name of the read: LAYER.SUBLAYER, or final", {"read"}});
  file.write("/layer", info.layer, {reads}, {"1", "layer of the read, from 0; -1 for the final read", {"read"}});
  file.write("/sublayer", info.sublayer, {"", "what the read feeds: attn, mlp or final", {"read"}});
  file.write("/depth", info.depth, {"", "third of the depth the read's layer is in: early, mid or late", {"read"}});
  file.write("/source", info.sources, {"", "name of the source: embedding, block_1 ..., current", {"source"}});
  write_index(file, "seq", info.sequences, "number of the probe sequence, from 0");
  write_index(file, "pos", info.positions, "position within a probe sequence, from 0");
  write_index(file, "d", info.hidden_size, "channel of the residual stream, from 0");
  file.write("/probe_tokens", info.probe_tokens, {info.sequences, info.positions},
             {"token id", "the held-out tokens that every snapshot is measured on", {"seq", "pos"}});
}

void create_snapshots(File& file, const RoutingRecordInfo& info) {
  const auto reads = static_cast<std::int64_t>(info.reads.size());
  const auto sources = static_cast<std::int64_t>(info.sources.size());
  const std::int64_t d = info.hidden_size;
  file.create_growing("/step", Type::i64, {}, {"step", "optimizer steps done before the routing snapshot", {"step"}});
  file.create_growing("/tokens_seen", Type::i64, {}, {"token", "training tokens seen before the snapshot", {"step"}});
  const Layout per_source{"1", "", {"step", "read", "source"}};
  const auto described = [](Layout layout, const std::string& units, const std::string& description) {
    layout.units = units;
    layout.description = description;
    return layout;
  };
  file.create_growing("/alpha_mean", Type::f32, {reads, sources},
                      described(per_source, "1", "routing weight, mean over the probe tokens; NaN: no such source"));
  file.create_growing("/alpha_std", Type::f32, {reads, sources},
                      described(per_source, "1", "routing weight, standard deviation over the probe tokens"));
  file.create_growing("/alpha_entropy", Type::f32, {reads},
                      {"nat", "entropy of a token's routing weights, mean over the probe tokens", {"step", "read"}});
  file.create_growing("/source_rms", Type::f32, {reads, sources},
                      described(per_source, "1", "root mean square of the source's channels, mean over probe tokens"));
  const Layout per_channel{"1", "", {"step", "read", "d"}};
  file.create_growing("/query", Type::f32, {reads, d}, described(per_channel, "1", "learned query w of the read"));
  file.create_growing("/gain", Type::f32, {reads, d}, described(per_channel, "1", "learned key gain g of the read"));
  file.create_growing("/bias", Type::f32, {reads},
                      {"nat", "bias on the current source's logit of the read", {"step", "read"}});
  file.create_growing("/crc32", Type::i64, {}, {"1", "CRC-32 of the row", {"step"}});
}

void create_alpha(File& file, const RoutingRecordInfo& info) {
  const auto reads = static_cast<std::int64_t>(info.reads.size());
  const auto sources = static_cast<std::int64_t>(info.sources.size());
  file.create_growing("/alpha_step", Type::i64, {},
                      {"step", "steps at which weights were kept per token", {"alpha_step"}});
  // One read of one step is read at a time, so a chunk holds nothing else; up to 512 Ki weights (1 MiB).
  const auto at_least_one = [](std::int64_t length) { return std::max<std::int64_t>(length, 1); };
  constexpr std::int64_t chunk_weights = 512 * 1024;
  const std::int64_t pos =
      std::clamp<std::int64_t>(chunk_weights / at_least_one(sources), 1, at_least_one(info.positions));
  const std::int64_t seq =
      std::clamp<std::int64_t>(chunk_weights / (pos * at_least_one(sources)), 1, at_least_one(info.sequences));
  Layout layout{"1",
                "routing weight of every probe token; NaN: no such source",
                {"alpha_step", "read", "seq", "pos", "source"},
                1,
                {1, 1, seq, pos, at_least_one(sources)}};
  file.create_growing("/alpha", Type::f16, {reads, info.sequences, info.positions, sources}, layout);
  file.create_growing("/alpha_crc32", Type::i64, {}, {"1", "CRC-32 of the row as it is stored", {"alpha_step"}});
}

void create_curves(File& file) {
  file.create_growing("/train/step", Type::i64, {}, {"step", "number of the step, 1 after the first update", {"step"}});
  const auto train = [&](const char* name, Type type, const char* units, const char* description) {
    file.create_growing(std::string("/train/") + name, type, {}, {units, description, {"step"}});
  };
  train("tokens_seen", Type::i64, "token", "training tokens seen, this step's included");
  train("loss", Type::f64, "nat/token", "mean negative log-likelihood of the step's tokens, before its update");
  train("lr", Type::f64, "1", "learning rate of the update");
  train("grad_norm", Type::f64, "nat/token", "Euclidean norm of the gradient before clipping");
  train("tokens_per_second", Type::f64, "token/s", "training tokens of the step over its duration");
  train("seconds", Type::f64, "s", "duration of the step");
  train("crc32", Type::i64, "1", "CRC-32 of the row");
  file.create_growing("/valid/step", Type::i64, {}, {"step", "optimizer steps done before the validation", {"step"}});
  file.create_growing("/valid/loss", Type::f64, {},
                      {"nat/token", "mean negative log-likelihood of the validation tokens", {"step"}});
  file.create_growing("/valid/crc32", Type::i64, {}, {"1", "CRC-32 of the row", {"step"}});
}

// A number that no other file has, in a place of the file that never changes.
JournalMark create_mark(File& file) {
  std::random_device random;
  const std::vector<std::int64_t> id{
      static_cast<std::int64_t>((static_cast<std::uint64_t>(random()) << 32) | random())};
  const Dataset data = file.write("/id", id, {}, {"1", "random number that ties the journal to this file", {}});
  JournalMark out;
  std::memcpy(out.id.data(), id.data(), out.id.size());
  out.address = data.file_address();
  return out;
}

// CRC-32 of everything that read_info() returns.
std::int64_t checksum_of(const RoutingRecordInfo& info) {
  RowChecksum sum;
  for (const auto* labels : {&info.reads, &info.sublayer, &info.depth, &info.sources})
    for (const std::string& label : *labels) sum.add(label + '\n');
  sum.add(info.layer);
  sum.add(std::array{info.hidden_size, info.sequences, info.positions});
  sum.add(info.probe_tokens);
  sum.add(info.config);
  sum.add(info.git_commit);
  return sum.value();
}

void expect_size(const char* what, std::size_t found, std::size_t expected) {
  if (found != expected) throw Error("routing record: {} has {} entries, expected {}", what, found, expected);
}

}  // namespace

JournalMark create(File& file, const RoutingRecordInfo& info, const std::string& created) {
  expect_size("layer", info.layer.size(), info.reads.size());
  expect_size("sublayer", info.sublayer.size(), info.reads.size());
  expect_size("depth", info.depth.size(), info.reads.size());
  expect_size("probe_tokens", info.probe_tokens.size(), static_cast<std::size_t>(info.sequences * info.positions));
  file.set("filetype", filetype);
  file.set("version", std::vector<std::int64_t>{version_major, version_minor});
  file.set("routescope_version", routescope_version());
  file.set("git_commit", info.git_commit);
  file.set("created", created.empty() ? now_utc() : created);
  file.set("config", info.config);
  create_axes(file, info);
  create_snapshots(file, info);
  create_alpha(file, info);
  create_curves(file);
  file.set("fixed_crc32", checksum_of(info));
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
  if (version.empty() || version[0] != version_major)
    throw Error("{}@version: {}, expected {}", file.where(), version.empty() ? -1 : version[0], version_major);
  RoutingRecordInfo info;
  info.reads = file.read_text("/read");
  info.layer = file.read<std::int32_t>("/layer");
  info.sublayer = file.read_text("/sublayer");
  info.depth = file.read_text("/depth");
  info.sources = file.read_text("/source");
  info.hidden_size = file.dataset("/d").rows();
  Shape tokens;
  info.probe_tokens = file.read<std::int32_t>("/probe_tokens", &tokens);
  if (tokens.size() != 2) throw Error("{}: /probe_tokens: {} axes, expected 2", file.where(), tokens.size());
  info.sequences = tokens[0];
  info.positions = tokens[1];
  info.config = file.text("config");
  info.git_commit = file.text("git_commit");
  if (file.has("fixed_crc32") && file.integer("fixed_crc32") != checksum_of(info))
    throw Error("{}: the labels, probe tokens or configuration are damaged: CRC-32 {:08x}, expected {:08x}",
                file.where(), checksum_of(info), file.integer("fixed_crc32"));
  return info;
}

Table Table::open(const File& file, const std::string& step_path, const std::vector<std::string>& column_paths) {
  Table out{file.dataset(step_path), {}};
  for (const std::string& path : column_paths)
    if (path != column_paths.back() || file.exists(path)) out.columns.push_back(file.dataset(path));
  return out;
}

bool Table::has_checksums() const {
  return columns.back().path().ends_with("crc32");
}

void Table::flush_columns() {
  for (Dataset& column : columns) column.flush();
}

void Table::append_steps(File& file, std::span<const std::int64_t> steps) {
  flush_columns();
  file.journal_values(true);
  step.append(steps, static_cast<std::int64_t>(steps.size()));
  step.flush();
  file.journal_values(false);
}

Tables::Tables(const File& file)
    : snapshot(Table::open(file, "/step", snapshot_columns)),
      alpha(Table::open(file, "/alpha_step", alpha_columns)),
      train(Table::open(file, "/train/step", train_columns)),
      valid(Table::open(file, "/valid/step", valid_columns)) {}

}  // namespace routescope::data::routing_format
