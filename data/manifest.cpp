// MANIFEST.json of a checkpoint directory: {"version": 1, "files": {NAME: {"bytes": N, "sha256": HEX}, ...}}.
#include "data/manifest.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>

#include "data/error.h"
#include "data/files.h"

namespace routescope {

namespace {

constexpr const char* manifest_name = "MANIFEST.json";
constexpr int manifest_version = 1;
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

}  // namespace

void write_manifest(const std::filesystem::path& dir) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& file : regular_files(dir)) {
    files[file.filename().string()] = {{"bytes", std::filesystem::file_size(file)}, {"sha256", sha256_file(file)}};
    sync_path(file);
  }
  if (files.empty()) throw Error("{}: holds no file, a manifest would vouch for nothing", dir.string());
  write_text_atomically(dir / manifest_name,
                        nlohmann::json{{"version", manifest_version}, {"files", files}}.dump(2) + "\n");
}

std::vector<ManifestEntry> list_manifest(const std::filesystem::path& dir) {
  const auto manifest = dir / manifest_name;
  if (!std::filesystem::exists(manifest))
    throw Error("{}: no such file: the checkpoint is incomplete, or no checkpoint", manifest.string());
  std::vector<ManifestEntry> out;
  try {
    const auto json = nlohmann::json::parse(read_text(manifest));
    if (const int version = json.at("version").get<int>(); version != manifest_version)
      throw Error("{}: version {}, expected {}", manifest.string(), version, manifest_version);
    for (const auto& [name, entry] : json.at("files").items())
      out.push_back({name, entry.at("bytes").get<std::uintmax_t>(), entry.at("sha256").get<std::string>()});
  } catch (const nlohmann::json::exception& wrong) {
    throw Error("{}: not a manifest: {}", manifest.string(), wrong.what());
  }
  return out;
}

void verify_manifest(const std::filesystem::path& dir) {
  for (const auto& [name, bytes, checksum] : list_manifest(dir)) {
    const auto file = dir / name;
    if (!std::filesystem::is_regular_file(file))
      throw Error("{}: no such file, {} lists it", file.string(), manifest_name);
    if (const auto found = std::filesystem::file_size(file); found != bytes)
      throw Error("{}: {} bytes, expected {} ({})", file.string(), found, bytes, manifest_name);
    if (const auto found = sha256_file(file); found != checksum)
      throw Error("{}: SHA-256 {}, expected {} ({})", file.string(), found, checksum, manifest_name);
  }
}

std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir, std::int64_t step) {
  return run_dir / "checkpoints" / fmt::format("{}{:08}", step_prefix, step);
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
    // Whatever is not exactly a checkpoint's name (one still being written, say) is not one.
    if (bad != std::errc() || found.dir != checkpoint_dir(run_dir, found.step)) continue;
    if (std::filesystem::exists(entry->path() / manifest_name, error)) out.push_back(found);
  }
  if (error) throw Error("{}: cannot list: {}", root.string(), error.message());
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

}  // namespace routescope
