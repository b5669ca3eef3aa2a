#include "data/records/inspect.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/base/text.h"
#include "data/hdf5/file.h"
#include "data/records/routing_view.h"
#include "data/tokens/shard.h"
#include "data/tokens/tokenizer.h"

namespace routescope::data {

namespace {

std::string inspect_shard(const std::filesystem::path& file) {
  const Shard shard(file);
  std::string out = fmt::format("token shard, {} tokens, uint{}\n", shard.size(), 8 * shard.bytes_per_token());
  if (shard.size() == 0) return out;
  std::int64_t offset = 0;
  const std::int32_t largest = shard.largest_id(&offset);
  out += fmt::format("largest id    {} (token {})\n", largest, offset);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(std::min<std::int64_t>(shard.size(), 72)));
  shard.read(0, tokens);
  std::string ids;
  for (std::size_t i = 0; i < std::min<std::size_t>(tokens.size(), 16); ++i) ids += fmt::format(" {}", tokens[i]);
  out += fmt::format("first ids    {}{}\n", ids, tokens.size() > 16 ? " ..." : "");
  if (largest < byte_tokenizer::vocab_size)
    out += fmt::format("as bytes      {}\n", printable(byte_tokenizer::decode(tokens)));
  return out;
}

// Every dataset of a file: path, shape, units, description.
std::string list_datasets(const hdf5::File& file) {
  std::string out;
  hdf5::each_dataset(file, [&](const hdf5::Dataset& data) {
    const std::string units = data.has("units") ? printable(data.text("units")) : "";
    const std::string description = data.has("description") ? printable(data.text("description")) : "";
    std::string line =
        fmt::format("{:<28} {:<22} {:<10} {}", printable(data.path()), hdf5::to_text(data.shape()), units, description);
    line.resize(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  });
  return out;
}

// The first and last value of a column; of a single row, its value.
template <class Row, class Value>
std::string first_to_last(const std::vector<Row>& rows, Value value) {
  if (rows.empty()) return "none";
  if (rows.size() == 1) return fmt::format("{:.4g}", static_cast<double>(value(rows.front())));
  return fmt::format("{:.4g} -> {:.4g}", static_cast<double>(value(rows.front())),
                     static_cast<double>(value(rows.back())));
}

std::string summarize_routing(const std::filesystem::path& file) {
  const RoutingRecordView view = RoutingRecordView::load(file);
  const auto& info = view.info;
  const std::set<std::int64_t> documents(info.probe_documents.begin(), info.probe_documents.end());
  std::string out = fmt::format(
      "{} reads x {} sources, hidden size {}, probe tokens {} x {}{}\n", info.reads.size(), info.sources.size(),
      info.hidden_size, info.sequences, info.positions,
      documents.empty() ? "" : fmt::format(" of {} document{}", documents.size(), documents.size() == 1 ? "" : "s"));
  const auto step = [](const auto& row) { return row.step; };
  out += fmt::format("snapshots     {:<6} steps {}\n", view.snapshots.size(), first_to_last(view.snapshots, step));
  out += fmt::format("per token     {:<6} steps {}\n", view.alpha_steps.size(),
                     first_to_last(view.alpha_steps, [](std::int64_t value) { return value; }));
  out += fmt::format("training      {:<6} steps {}, loss {} nat/token\n", view.train.size(),
                     first_to_last(view.train, step),
                     first_to_last(view.train, [](const TrainRow& row) { return row.loss; }));
  out += fmt::format("validation    {:<6} steps {}, loss {} nat/token\n", view.valid.size(),
                     first_to_last(view.valid, step),
                     first_to_last(view.valid, [](const ValidRow& row) { return row.loss; }));
  if (!info.reads.empty() && !view.snapshots.empty()) {
    const auto entropy = [](const RoutingSnapshot& row) {
      double sum = 0;
      for (const float value : row.alpha_entropy) sum += value;
      return sum / static_cast<double>(row.alpha_entropy.size());
    };
    out += fmt::format("routing       entropy {} nat, mean over reads\n", first_to_last(view.snapshots, entropy));
  }
  return out;
}

std::string inspect_hdf5(const std::filesystem::path& name) {
  const hdf5::File file = hdf5::File::open(name);
  const std::string type = file.has("filetype") ? file.text("filetype") : "";
  std::string out = "HDF5 file" + (type.empty() ? std::string() : ", " + printable(type));
  if (file.has("version")) {
    const auto version = file.integers("version");
    for (std::size_t i = 0; i < version.size(); ++i) out += fmt::format("{}{}", i ? "." : " ", version[i]);
  }
  for (const char* attribute : {"routescope_version", "git_commit", "created"})
    if (file.has(attribute)) out += fmt::format(", {} {}", attribute, printable(file.text(attribute)));
  out += "\n";
  if (type == "routescope routing") out += summarize_routing(name);
  return out + list_datasets(file);
}

/// How many ranks wrote a checkpoint's training state (data/formats/checkpoint.md); 0: there is none. Throws Error if
/// parts of it are missing.
std::size_t state_ranks(const std::filesystem::path& dir, const std::vector<ManifestEntry>& files) {
  std::size_t found = 0, expected = 0;
  for (const ManifestEntry& file : files) {
    if (!file.name.starts_with("train_state")) continue;
    ++found;
    const auto of = file.name.find("-of-");
    expected = of == std::string::npos ? 1 : std::strtoull(file.name.c_str() + of + 4, nullptr, 10);
  }
  if (found != expected)
    throw Error("{}: found {} train_state files, expected {} by their names", dir.string(), found, expected);
  return found;
}

std::string inspect_checkpoint(const std::filesystem::path& dir) {
  verify_manifest(dir);
  const std::vector<ManifestEntry> files = list_manifest(dir);
  const std::size_t ranks = state_ranks(dir, files);
  std::uintmax_t total = 0;
  for (const ManifestEntry& file : files) total += file.bytes;
  std::string out = fmt::format("checkpoint, every file agrees with MANIFEST.json; {} bytes; ", total);
  out +=
      ranks == 0 ? "no training state\n" : fmt::format("training state of {} rank{}\n", ranks, ranks == 1 ? "" : "s");
  for (const ManifestEntry& file : files)
    out += fmt::format("{:<40} {:>14} bytes  sha256 {}\n", file.name, file.bytes, file.sha256);
  return out;
}

}  // namespace

bool is_hdf5(const std::filesystem::path& file) {
  require_regular(file);
  constexpr std::array<char, 8> signature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  std::array<char, 8> found{};
  std::ifstream(file, std::ios::binary).read(found.data(), found.size());
  return found == signature;
}

std::string inspect(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) throw Error("{}: no such file", path.string());
  if (std::filesystem::is_directory(path)) return inspect_checkpoint(path);
  return is_hdf5(path) ? inspect_hdf5(path) : inspect_shard(path);
}

}  // namespace routescope::data
