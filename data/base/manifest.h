// A checkpoint directory is complete when its MANIFEST.json, written last, names every file with size and SHA-256, and
// itself by a checksum of its own (data/formats/checkpoint.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace routescope::data {

struct ManifestEntry {
  std::string name;
  std::uintmax_t bytes = 0;
  std::string sha256;
};

/// Writes MANIFEST.json for every regular file in `dir` (not recursive), which are synced too.
void write_manifest(const std::filesystem::path& dir);
/// Writes MANIFEST.json for files whose sizes and checksums are known, and reads it back.
void write_manifest(const std::filesystem::path& dir, const std::vector<ManifestEntry>& files);

/// Whether a file of this name lies in the directory itself: no path, "." or "..", and no NUL byte.
bool is_file_name(const std::string& name);

/// The files that the text of a manifest lists, by name. Throws Error, which names `where`, if it is none or is
/// damaged.
std::vector<ManifestEntry> parse_manifest(const std::string& text, const std::string& where);
/// The files that a manifest lists, by name. Does not read the files. Throws Error if the manifest is missing, is not a
/// manifest, is damaged, or does not list a file of a checkpoint that is there.
std::vector<ManifestEntry> list_manifest(const std::filesystem::path& dir);
/// Throws Error if the file is missing or has another size or checksum than expected; `by` names the source of these.
void verify_entry(const std::filesystem::path& dir, const ManifestEntry& expected,
                  const std::string& by = "MANIFEST.json");
/// Throws Error naming the first file that is missing, has another size or another checksum, or the manifest.
void verify_manifest(const std::filesystem::path& dir);
/// Whether a file of this name holds the state of a training run, which only that run reads.
bool is_train_state(const std::string& name);
/// verify_manifest() without the files of is_train_state(). Nothing else of a checkpoint is read to probe it, and a
/// run may remove them at any moment (checkpoint.keep_state).
void verify_model(const std::filesystem::path& dir);

struct CheckpointEntry {
  std::int64_t step = 0;
  std::filesystem::path dir;
};
/// runs/NAME/checkpoints/step-00001000 -> step 1000.
std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir, std::int64_t step);
/// runs/NAME/initial: the model directory of step 0, of a run that no longer keeps that checkpoint.
std::filesystem::path initial_dir(const std::filesystem::path& run_dir);
/// Every checkpoint of a run that has a manifest, by step. Contents are not verified.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& run_dir);

}  // namespace routescope::data
