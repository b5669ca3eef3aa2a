// A checkpoint directory is complete when its MANIFEST.json, written last, names every file with size and SHA-256
// (data/formats/checkpoint.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace routescope {

/// Writes MANIFEST.json for every regular file in `dir` (not recursive), synced.
void write_manifest(const std::filesystem::path& dir);
/// Throws Error naming the first file that is missing, has another size or another checksum, or the missing manifest.
void verify_manifest(const std::filesystem::path& dir);

struct ManifestEntry {
  std::string name;
  std::uintmax_t bytes = 0;
  std::string sha256;
};
/// What a manifest lists, by name. Throws Error if it is missing or is none; the files themselves are not looked at.
std::vector<ManifestEntry> list_manifest(const std::filesystem::path& dir);

struct CheckpointEntry {
  std::int64_t step = 0;
  std::filesystem::path dir;
};
/// runs/NAME/checkpoints/step-00001000 -> step 1000.
std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir, std::int64_t step);
/// Every checkpoint of a run that has a manifest, by step. Contents are not verified.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& run_dir);

}  // namespace routescope
