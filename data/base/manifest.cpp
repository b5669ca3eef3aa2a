// MANIFEST.json of a checkpoint directory:
// {"files": {NAME: {"bytes": N, "sha256": HEX}, ...}, "sha256": HEX, "version": 2}.
#include "data/base/manifest.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"
#include "data/base/sha256.h"

namespace routescope::data {

namespace {

constexpr const char* manifest_name = "MANIFEST.json";
constexpr int manifest_version = 2;
constexpr int version_without_checksum = 1;
const std::string step_prefix = "step-";

std::vector<std::filesystem::path> regular_files(const std::filesystem::path& dir) {
  std::error_code error;
  std::vector<std::filesystem::path> out;
  for (std::filesystem::directory_iterator entry(dir, error), end; !error && entry != end; entry.increment(error))
    if (entry->is_regular_file() && entry->path().filename() != manifest_name) out.push_back(entry->path());
  if (error) throw Error("{}: cannot list: {}", dir.string(), error.message());
  std::sort(out.begin(), out.end());
  return out;
}

/// What readers of a checkpoint take from it without asking the manifest.
bool is_of_a_checkpoint(const std::string& name) {
  return name == "config.json" || name == "model.safetensors.index.json" ||
         (name.ends_with(".safetensors") && (name.starts_with("model") || name.starts_with("train_state")));
}

/// No manifest covers only a part of the checkpoint: what it leaves out could be of another step.
void require_listed(const std::filesystem::path& dir, const std::vector<ManifestEntry>& listed) {
  for (const auto& file : regular_files(dir)) {
    const std::string name = file.filename().string();
    const auto is_it = [&name](const ManifestEntry& entry) { return entry.name == name; };
    if (is_of_a_checkpoint(name) && std::none_of(listed.begin(), listed.end(), is_it))
      throw Error("{}: found {} beside it, which it does not list", (dir / manifest_name).string(), name);
  }
}

// Stands in the place of a manifest's own checksum while that is computed.
const std::string no_checksum(64, '0');

/// The checksum of a manifest is that of its text with zeros in the checksum's place, so that it covers every byte.
void check_own_sum(const std::string& where, std::string text, const std::string& expected) {
  const auto at = text.rfind(expected);
  if (expected.size() != no_checksum.size() || at == std::string::npos)
    throw Error("{}: sha256: found '{}', expected {} hexadecimal digits", where, shortened(expected),
                no_checksum.size());
  text.replace(at, expected.size(), no_checksum);
  if (const std::string found = sha256_text(text); found != expected)
    throw Error("{}: SHA-256 of its text {}, expected {} (its own)", where, found, expected);
}

}  // namespace

void write_manifest(const std::filesystem::path& dir) {
  std::vector<ManifestEntry> files;
  for (const auto& file : regular_files(dir)) {
    files.push_back({file.filename().string(), std::filesystem::file_size(file), sha256_file(file)});
    sync_path(file);
  }
  write_manifest(dir, files);
}

void write_manifest(const std::filesystem::path& dir, const std::vector<ManifestEntry>& files) {
  if (files.empty()) throw Error("{}: found no file, expected at least one to list in a manifest", dir.string());
  nlohmann::json listed = nlohmann::json::object();
  for (const auto& [name, bytes, sha256] : files) listed[name] = {{"bytes", bytes}, {"sha256", sha256}};
  std::string text =
      nlohmann::json{{"version", manifest_version}, {"files", listed}, {"sha256", no_checksum}}.dump(2) + "\n";
  text.replace(text.rfind(no_checksum), no_checksum.size(), sha256_text(text));
  write_text_atomically(dir / manifest_name, text);
  list_manifest(dir);
}

bool is_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

std::vector<ManifestEntry> parse_manifest(const std::string& text, const std::string& where) {
  const std::string at = where + ": not a manifest";
  const auto json = parse_json(text, at);
  const auto version = json_member<std::int64_t>(json, "version", at);
  if (version == manifest_version)
    check_own_sum(at, text, json_member<std::string>(json, "sha256", at));
  else if (version != version_without_checksum || json.contains("sha256"))
    throw Error("{}: version: found {}, expected {}", where, version, manifest_version);
  const auto& files = json_member(json, "files", at);
  std::vector<ManifestEntry> out;
  for (const auto& [name, entry] : files.items()) {
    if (!files.is_object() || !is_file_name(name))
      throw Error("{}: files: found '{}', expected a file name", at, shortened(name));
    const std::string of = at + ": files: " + shortened(name);
    out.push_back(
        {name, json_member<std::uintmax_t>(entry, "bytes", of), json_member<std::string>(entry, "sha256", of)});
  }
  if (out.empty()) throw Error("{}: it lists no file", at);
  return out;
}

std::vector<ManifestEntry> list_manifest(const std::filesystem::path& dir) {
  const auto manifest = dir / manifest_name;
  if (!std::filesystem::exists(manifest))
    throw Error("{}: no such file: the checkpoint is incomplete, or no checkpoint", manifest.string());
  std::vector<ManifestEntry> out = parse_manifest(read_text(manifest), manifest.string());
  require_listed(dir, out);
  return out;
}

void verify_entry(const std::filesystem::path& dir, const ManifestEntry& expected, const std::string& by) {
  const auto file = dir / expected.name;
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    throw Error("{}: no such file, expected {} bytes ({})", file.string(), expected.bytes, by);
  if (const auto found = std::filesystem::file_size(file); found != expected.bytes)
    throw Error("{}: {} bytes, expected {} ({})", file.string(), found, expected.bytes, by);
  if (const auto found = sha256_file(file); found != expected.sha256)
    throw Error("{}: SHA-256 {}, expected {} ({})", file.string(), found, expected.sha256, by);
}

void verify_manifest(const std::filesystem::path& dir) {
  for (const ManifestEntry& entry : list_manifest(dir)) verify_entry(dir, entry);
}

bool is_train_state(const std::string& name) {
  return name.starts_with("train_state");
}

void verify_model(const std::filesystem::path& dir) {
  for (const ManifestEntry& entry : list_manifest(dir))
    if (!is_train_state(entry.name)) verify_entry(dir, entry);
}

std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir, std::int64_t step) {
  return run_dir / "checkpoints" / fmt::format("{}{:08}", step_prefix, step);
}

std::filesystem::path initial_dir(const std::filesystem::path& run_dir) {
  return run_dir / "initial";
}

std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& run_dir) {
  std::vector<CheckpointEntry> out;
  const auto root = run_dir / "checkpoints";
  std::error_code error;
  if (!std::filesystem::exists(root, error)) return out;
  for (std::filesystem::directory_iterator entry(root, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(step_prefix)) continue;
    CheckpointEntry found{0, entry->path()};
    const char* digits = name.data() + step_prefix.size();
    const auto [stop, bad] = std::from_chars(digits, name.data() + name.size(), found.step);
    // Only the exact name of a checkpoint counts: not that of one that is still being written.
    if (bad != std::errc() || found.dir != checkpoint_dir(run_dir, found.step)) continue;
    if (std::filesystem::exists(entry->path() / manifest_name, error)) out.push_back(found);
  }
  if (error) throw Error("{}: cannot list: {}", root.string(), error.message());
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

}  // namespace routescope::data
