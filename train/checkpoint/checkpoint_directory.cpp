#include "train/checkpoint/checkpoint_directory.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/sha256.h"
#include "model/files/rounded_weights.h"
#include "model/files/safetensors.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

// Prefixes of names that readers ignore.
constexpr const char* kWriting = ".writing-";
constexpr const char* kRemoving = ".removing-";
constexpr const char* kWeights = ".weights-";  // a checkpoint without its state, before it takes the name

fs::path beside(const fs::path& dir, const char* prefix) {
  return dir.parent_path() / (prefix + dir.filename().string());
}

fs::path checkpoints_dir(const fs::path& run_dir) {
  return data::checkpoint_dir(run_dir, 0).parent_path();
}

}  // namespace

void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code no_links;  // some file systems have none
  fs::create_hard_link(from, to, no_links);
  if (!no_links) return;
  fs::copy_file(from, to);
  data::sync_path(to);
}

fs::path writing_dir(const fs::path& checkpoint) {
  return beside(checkpoint, kWriting);
}

void rename_directory(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error)
    throw data::Error("{}: cannot be renamed to {}: {}", from.string(), to.filename().string(), error.message());
}

std::vector<data::CheckpointEntry> named_as_checkpoints(const fs::path& run_dir) {
  constexpr std::string_view kPrefix = "step-";
  const fs::path parent = checkpoints_dir(run_dir);
  std::vector<data::CheckpointEntry> found;
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t step = 0;
    const auto [stop, bad] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
    if (bad == std::errc() && entry->path() == data::checkpoint_dir(run_dir, step))
      found.push_back({step, entry->path()});
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw data::Error("{}: cannot list: {}", parent.string(), error.message());
  return found;
}

bool is_intact(const data::CheckpointEntry& checkpoint, const std::atomic<bool>& given_up) {
  try {
    std::vector<char> piece(std::size_t{1} << 20);
    for (const data::ManifestEntry& expected : data::list_manifest(checkpoint.dir)) {
      data::require_regular(checkpoint.dir / expected.name);
      std::ifstream in(checkpoint.dir / expected.name, std::ios::binary);
      if (!in) return false;
      data::Sha256 sum;
      do {
        if (given_up) return false;
        in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
        sum.add(piece.data(), static_cast<std::size_t>(in.gcount()));
      } while (in);
      if (in.bad() || sum.hex() != expected.sha256) return false;
      if (holds_tensors(expected.name)) check_finite(checkpoint.dir / expected.name);
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

bool holds_tensors(const fs::path& file) {
  return file.extension() == ".safetensors";
}

void check_finite(const fs::path& file) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 18;
  const model::SafetensorsReader reader(file);
  std::vector<float> values;
  for (const model::SafetensorsEntry& entry : reader.entries()) {
    const std::int64_t size =
        std::accumulate(entry.shape.begin(), entry.shape.end(), std::int64_t{1}, std::multiplies<>());
    for (std::int64_t first = 0; first < size; first += kPiece) {
      values.resize(static_cast<std::size_t>(std::min(kPiece, size - first)));
      reader.read_elements(
          entry.name, first,
          kernels::Tensor(values.data(), kernels::DType::f32, kernels::Device::cpu, {std::ssize(values)}));
      const auto bad = std::ranges::find_if_not(values, [](float value) { return std::isfinite(value); });
      if (bad != values.end())
        throw data::Error("{}: {}: element {}: found {}, expected a finite number", file.string(), entry.name,
                          first + (bad - values.begin()), *bad);
    }
  }
}

bool has_state(const data::CheckpointEntry& checkpoint) {
  const std::vector<data::ManifestEntry> files = data::list_manifest(checkpoint.dir);
  return std::ranges::any_of(files, [](const data::ManifestEntry& file) { return data::is_train_state(file.name); });
}

namespace {

/// Fills the directory that is to take the place of a checkpoint.
void write_weights(const fs::path& checkpoint, const fs::path& weights, kernels::DType dtype) {
  fs::create_directory(weights);
  std::vector<data::ManifestEntry> kept = data::list_manifest(checkpoint);
  std::erase_if(kept, [](const data::ManifestEntry& file) { return data::is_train_state(file.name); });
  for (data::ManifestEntry& file : kept) {
    const fs::path from = checkpoint / file.name, to = weights / file.name;
    if (dtype == kernels::DType::bf16 && holds_tensors(file.name))
      file = model::write_rounded_weights(from, file, to);
    else
      link_or_copy(from, to);
  }
  data::write_manifest(weights, kept);
  data::sync_path(weights);
}

}  // namespace

void remove_state(const fs::path& checkpoint, kernels::DType weights_dtype) {
  const fs::path weights = beside(checkpoint, kWeights);
  std::error_code error;
  fs::remove_all(weights);
  try {
    write_weights(checkpoint, weights, weights_dtype);
  } catch (...) {
    fs::remove_all(weights, error);
    throw;
  }
  if (::renameat2(AT_FDCWD, weights.c_str(), AT_FDCWD, checkpoint.c_str(), RENAME_EXCHANGE) == 0) {
    data::sync_path(checkpoint.parent_path());
    fs::remove_all(weights, error);  // if this fails, remove_debris() tries again at the next start
    return;
  }
  remove_checkpoint(checkpoint);
  rename_directory(weights, checkpoint);
  data::sync_path(checkpoint.parent_path());
}

void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden = beside(checkpoint, kRemoving);
  std::error_code error;
  fs::remove_all(hidden, error);
  rename_directory(checkpoint, hidden);
  fs::remove_all(hidden, error);  // if this fails, remove_debris() tries again at the next start
}

void remove_checkpoints_after(const fs::path& run_dir, std::int64_t step) {
  bool removed = false;
  for (const data::CheckpointEntry& entry : named_as_checkpoints(run_dir)) {
    if (entry.step <= step) continue;
    remove_checkpoint(entry.dir);
    removed = true;
  }
  if (removed) data::sync_path(checkpoints_dir(run_dir));
}

void set_aside_checkpoints_after(const fs::path& run_dir, std::int64_t step) {
  for (const data::CheckpointEntry& checkpoint : data::list_checkpoints(run_dir)) {
    if (checkpoint.step <= step) continue;
    const fs::path aside = beside(checkpoint.dir, "damaged-");
    fs::remove_all(aside);
    fs::rename(checkpoint.dir, aside);
    spdlog::warn("{}: set aside as {}", checkpoint.dir.string(), aside.filename().string());
  }
}

void remove_debris(const fs::path& run_dir) {
  const fs::path parent = checkpoints_dir(run_dir);
  if (!fs::is_directory(parent)) return;
  std::vector<fs::path> debris;
  for (const auto& entry : fs::directory_iterator(parent)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kWriting) || name.starts_with(kRemoving) || name.starts_with(kWeights))
      debris.push_back(entry.path());
  }
  for (const fs::path& path : debris) {
    const std::string name = path.filename().string();
    if (!name.starts_with(kWeights) || !fs::exists(path / "MANIFEST.json")) continue;
    // It is complete. The checkpoint whose name it takes is gone, or only that name is.
    const fs::path checkpoint = parent / name.substr(std::string_view(kWeights).size());
    if (!fs::exists(checkpoint)) rename_directory(path, checkpoint);
  }
  for (const fs::path& path : debris) fs::remove_all(path);
}

}  // namespace routescope::train
