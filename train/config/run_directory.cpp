#include "train/config/run_directory.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

/// Whether a resumed run may change a key. These keys change weights and record by rounding at most (device, kernels,
/// the order of sums), or not at all. Data are compared by fingerprints instead of paths (start.cpp), and checkpoints
/// do not influence training.
bool may_change(const std::string& path) {
  return path == "run.dir" || path == "device" || path == "data.train" || path == "data.valid" ||
         path == "train.micro_batch" || path.starts_with("checkpoint.") || path.starts_with("train.non_finite.") ||
         path.starts_with("distributed.") || path.starts_with("kernels.");
}

bool holds_run(const fs::path& dir) {
  std::error_code error;
  return fs::exists(dir / "routing.h5", error) || fs::exists(dir / "checkpoints", error);
}

std::string value_or(const std::map<std::string, std::string>& values, const std::string& path) {
  const auto found = values.find(path);
  return found == values.end() ? "nothing" : found->second;
}

}  // namespace

RunLock::RunLock(const fs::path& run_dir, LeaseTimes times) {
  std::error_code error;
  fs::create_directories(run_dir, error);
  if (error) throw data::Error("run.dir: {}: cannot be made: {}", run_dir.string(), error.message());
  const fs::path file = run_dir / "lock";
  file_ = data::FileDescriptor(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (file_.get() < 0) throw data::Error("run.dir: {}: cannot be written: {}", run_dir.string(), std::strerror(errno));
  const fs::path lease = run_dir / "leases";
  const bool locked = ::flock(file_.get(), LOCK_EX | LOCK_NB) == 0;
  const int reason = errno;
  if (locked && !fs::exists(lease, error)) return;
  if (!locked && reason == EWOULDBLOCK)
    throw data::Error("run.dir: {}: another process is training in this directory, expected none", run_dir.string());
  if (!locked && !data::has_no_locks(reason))
    throw data::Error("{}: cannot be locked: {}", file.string(), std::strerror(reason));
  // A lease beside a lock is of a process whose machine has no locks here.
  lease_ = std::make_unique<Lease>(lease, times);
  if (!locked)
    spdlog::info("{}: this file system has no locks ({}): {} guards the run, with a heartbeat every {} s",
                 run_dir.string(), std::strerror(reason), lease.string(),
                 std::chrono::duration<double>(times.beat).count());
}

void RunLock::check() const {
  if (lease_) lease_->check();
}

std::optional<TrainConfig> held_config(const fs::path& run_dir) {
  const fs::path file = run_dir / "config.yaml";
  if (!holds_run(run_dir)) return std::nullopt;
  if (!fs::exists(file)) {
    throw data::Error(
        "{}: found routing.h5 or checkpoints without config.yaml, expected a run of this program or nothing",
        run_dir.string());
  }
  return load_config(file, {});
}

void check_place(const fs::path& file, const std::vector<std::string>& overrides, const TrainConfig& config) {
  const fs::path parent = file.has_parent_path() ? file.parent_path() : ".";
  std::error_code error;
  if (file.filename() != "config.yaml" || !holds_run(parent) || fs::equivalent(parent, config.run.dir, error)) return;
  if (std::ranges::any_of(
          overrides, [](const std::string& text) { return text.starts_with("run.dir=") || text.starts_with("run="); }))
    return;
  throw data::Error(
      "{}: run.dir: found {}, expected {}, the run directory that this file lies in (was it copied or moved?); "
      "run.dir={} on the command line goes on here, run.dir={} in the other directory",
      file.string(), config.run.dir, parent.string(), parent.string(), config.run.dir);
}

void check_config(const fs::path& run_dir, const TrainConfig& config) {
  const fs::path file = run_dir / "config.yaml";
  const std::optional<TrainConfig> holding = held_config(run_dir);
  if (!holding) return;
  const TrainConfig& held = *holding;
  const auto held_list = config_values(held), wanted_list = config_values(config);
  const std::map<std::string, std::string> held_values(held_list.begin(), held_list.end());
  const std::map<std::string, std::string> wanted_values(wanted_list.begin(), wanted_list.end());
  const auto refuse_if_different = [&](const std::string& path) {
    const std::string held_value = value_or(held_values, path), wanted = value_or(wanted_values, path);
    if (held_value == wanted || may_change(path)) return;
    // Older versions did not write these keys.
    if (held_value == "nothing" && (path == "model.bos_token_id" || path == "model.eos_token_id")) return;
    // With a constant learning rate the first steps of a longer run are those of the shorter run.
    if (path == "train.steps" && held.train.schedule.kind == "constant" && config.train.steps > held.train.steps)
      return;
    throw data::Error("{}: {}: found {}, expected {}: this directory holds another run (use another run.dir)",
                      file.string(), path, wanted, held_value);
  };
  for (const auto& [path, value] : held_list) refuse_if_different(path);
  for (const auto& [path, value] : wanted_list) refuse_if_different(path);
}

void write_config(const fs::path& run_dir, const TrainConfig& config) {
  const fs::path file = run_dir / "config.yaml";
  const std::string yaml = to_yaml(config);
  if (!fs::exists(file) || data::read_text(file) != yaml) data::write_text_atomically(file, yaml);
}

}  // namespace routescope::train
