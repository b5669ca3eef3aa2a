#include "train/checkpoint.h"

#include <spdlog/spdlog.h>

#include <charconv>
#include <set>
#include <vector>

#include "data/error.h"
#include "data/files.h"
#include "model/safetensors.h"

namespace routescope {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTrainState = "train_state.safetensors";
// Names that no reader takes for a checkpoint: the new one while it is written, an old one while it is removed.
constexpr const char* kWriting = ".writing-";
constexpr const char* kRemoving = ".removing-";

fs::path beside(const fs::path& dir, const char* prefix) {
  return dir.parent_path() / (prefix + dir.filename().string());
}

void rename_dir(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw Error("{}: cannot be renamed to {}: {}", from.string(), to.filename().string(), error.message());
}

/// Out of sight first, so that nobody meets half of it.
void remove_checkpoint(const fs::path& dir) {
  const fs::path hidden = beside(dir, kRemoving);
  fs::remove_all(hidden);
  rename_dir(dir, hidden);
  std::error_code error;
  fs::remove_all(hidden, error);  // what cannot be removed now is debris, removed at the next start
}

std::vector<SafetensorsItem> moment_items(const Model& model, const AdamW& optimizer) {
  std::vector<SafetensorsItem> items;
  for (const ParameterInfo& info : model.layout().all()) {
    const OptimizerRange& all = optimizer.ranges().front();
    items.push_back({"exp_avg." + info.name, info.shape, all.exp_avg.slice(info.offset, {info.size})});
    items.push_back({"exp_avg_sq." + info.name, info.shape, all.exp_avg_sq.slice(info.offset, {info.size})});
  }
  return items;
}

std::int64_t metadata_integer(const SafetensorsReader& reader, const fs::path& file, const std::string& key) {
  const auto found = reader.metadata().find(key);
  const std::string text = found == reader.metadata().end() ? "" : found->second;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    throw Error("{}: metadata {}: found '{}', expected an integer", file.string(), key, text);
  }
  return value;
}

std::string metadata_text(const SafetensorsReader& reader, const fs::path& file, const std::string& key) {
  const auto found = reader.metadata().find(key);
  if (found == reader.metadata().end())
    throw Error("{}: metadata {}: found nothing, expected a text", file.string(), key);
  return found->second;
}

}  // namespace

struct CheckpointWriter::Impl {
  fs::path run_dir;
  const Model& model;
  const AdamW& optimizer;
  Options options;
  std::int64_t completed = -1;
};

CheckpointWriter::CheckpointWriter(const fs::path& run_dir, const Model& model, const AdamW& optimizer, Communicator&,
                                   const Options& options)
    : impl_(new Impl{run_dir, model, optimizer, options}) {}
CheckpointWriter::~CheckpointWriter() = default;
CheckpointWriter::Vote CheckpointWriter::vote() const {
  return nothing_to_do;
}
void CheckpointWriter::settle(int) {}
void CheckpointWriter::finish() {}
std::int64_t CheckpointWriter::completed() const {
  return impl_->completed;
}
double CheckpointWriter::seconds_lost() const {
  return 0;
}

void CheckpointWriter::begin(const TrainState& state) {
  const auto& [run_dir, model, optimizer, options, completed] = *impl_;
  const fs::path dir = checkpoint_dir(run_dir, state.step);
  const fs::path writing = beside(dir, kWriting);
  try {
    fs::remove_all(writing);
    fs::create_directories(writing);
    model.save(writing);
    write_safetensors(writing / kTrainState, moment_items(model, optimizer),
                      {{"step", std::to_string(state.step)},
                       {"next_batch", std::to_string(state.next_batch)},
                       {"skipped", std::to_string(state.skipped)},
                       {"tokens_seen", std::to_string(state.tokens_seen)},
                       {"seed", std::to_string(state.seed)},
                       {"train_fingerprint", state.train_fingerprint},
                       {"valid_fingerprint", state.valid_fingerprint}});
    write_manifest(writing);
    sync_path(writing);
    if (fs::exists(dir)) remove_checkpoint(dir);
    rename_dir(writing, dir);
    sync_path(dir.parent_path());
    impl_->completed = state.step;
    if (options.keep > 0) prune_checkpoints(run_dir, options.keep);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(writing, ignored);
    throw Error("{}: the checkpoint cannot be written: {}", dir.string(), error.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(writing, ignored);
    throw;
  }
}

std::optional<CheckpointEntry> newest_intact_checkpoint(const fs::path& run_dir) {
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run_dir);
  // A directory without a manifest is none of ours: we rename only complete ones into place.
  std::set<fs::path> listed;
  for (const CheckpointEntry& checkpoint : checkpoints) listed.insert(checkpoint.dir.filename());
  const fs::path parent = checkpoint_dir(run_dir, 0).parent_path();
  bool damaged = false;
  if (fs::is_directory(parent)) {
    for (const auto& entry : fs::directory_iterator(parent)) {
      const fs::path name = entry.path().filename();
      if (!name.string().starts_with("step-") || listed.contains(name)) continue;
      spdlog::warn("{}: passed over: it has no MANIFEST.json", entry.path().string());
      damaged = true;
    }
  }
  for (auto checkpoint = checkpoints.rbegin(); checkpoint != checkpoints.rend(); ++checkpoint) {
    try {
      verify_manifest(checkpoint->dir);
      return *checkpoint;
    } catch (const Error& error) {
      spdlog::warn("passed over a broken checkpoint: {}", error.what());
      damaged = true;
    }
  }
  if (damaged) throw Error("{}: found no intact checkpoint, expected one to resume from", parent.string());
  return std::nullopt;
}

TrainState read_train_state(const CheckpointEntry& checkpoint) {
  const fs::path file = checkpoint.dir / kTrainState;
  const SafetensorsReader reader(file);
  const TrainState state{.step = metadata_integer(reader, file, "step"),
                         .next_batch = metadata_integer(reader, file, "next_batch"),
                         .skipped = metadata_integer(reader, file, "skipped"),
                         .tokens_seen = metadata_integer(reader, file, "tokens_seen"),
                         .seed = metadata_integer(reader, file, "seed"),
                         .train_fingerprint = metadata_text(reader, file, "train_fingerprint"),
                         .valid_fingerprint = metadata_text(reader, file, "valid_fingerprint")};
  if (state.step != checkpoint.step) {
    throw Error("{}: metadata step: found {}, expected {} as the directory is named", file.string(), state.step,
                checkpoint.step);
  }
  return state;
}

void read_moments(const CheckpointEntry& checkpoint, const Model& model, AdamW& optimizer) {
  const SafetensorsReader reader(checkpoint.dir / kTrainState);
  for (const SafetensorsItem& item : moment_items(model, optimizer)) reader.read(item.name, item.shape, item.data);
}

void remove_debris(const fs::path& run_dir) {
  const fs::path parent = checkpoint_dir(run_dir, 0).parent_path();
  if (!fs::is_directory(parent)) return;
  std::vector<fs::path> debris;
  for (const auto& entry : fs::directory_iterator(parent)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kWriting) || name.starts_with(kRemoving)) debris.push_back(entry.path());
  }
  for (const fs::path& path : debris) fs::remove_all(path);
}

void prune_checkpoints(const fs::path& run_dir, std::int64_t keep) {
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run_dir);
  const auto surplus = static_cast<std::int64_t>(checkpoints.size()) - keep;
  for (std::int64_t i = 0; i < surplus; ++i) remove_checkpoint(checkpoints[static_cast<std::size_t>(i)].dir);
}

}  // namespace routescope
