// A run that takes a fraction of a second: a micro model on a seeded stream, in a directory of its own, in this process
// or with the real binary; and the comparison of two runs.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/run/loop.h"

namespace routescope::testing {

/// A new directory, which is removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A directory with train.bin, valid.bin and micro.yaml: vocabulary 257, hidden size 32, 4 layers in 2 blocks, 16
/// positions, 12 steps of 64 tokens in micro-batches of 2 sequences. Runs go into subdirectories.
class MicroRun {
 public:
  MicroRun();

  std::filesystem::path dir(const std::string& run) const { return directory_ / run; }
  std::filesystem::path config_file() const { return directory_ / "micro.yaml"; }
  const TemporaryDirectory& directory() const { return directory_; }

  /// The configuration of run `run`, resolved.
  train::TrainConfig config(const std::string& run, std::vector<std::string> overrides = {}) const;
  /// Trains in this process. `stop` as in LoopOptions; it may throw, as a crash would.
  train::LoopResult train(const std::string& run, std::vector<std::string> overrides = {},
                          std::function<int(std::int64_t)> stop = nullptr) const;

  struct Finished {
    int status = 0;  // exit status, or minus the signal that ended it
    std::string out, err;
  };
  /// Starts routescope-train, alone or (ranks > 0) as several ranks under mpirun. The child is routescope-train or
  /// mpirun; it calls `prepare` before exec.
  pid_t start(const std::string& run, const std::vector<std::string>& overrides = {},
              const std::function<void()>& prepare = nullptr, int ranks = 0) const;
  /// Waits for the process that start() returned.
  Finished wait(pid_t child, const std::string& run) const;
  Finished execute(const std::string& run, const std::vector<std::string>& overrides = {},
                   const std::function<void()>& prepare = nullptr, int ranks = 0) const;

 private:
  TemporaryDirectory directory_;
};

/// The living children of `parent`, in the order of their ids. For mpirun these are the ranks in order.
std::vector<pid_t> children_of(pid_t parent);

/// Names of the checkpoints, in order: "step-00000000", ...
std::vector<std::string> checkpoint_names(const std::filesystem::path& run_dir);

/// Expects that both runs have the same checkpoints, byte for byte (at the steps that both have, and at the last), and
/// the same record, value for value except timings.
void expect_same_run(const std::filesystem::path& found, const std::filesystem::path& expected);
/// Of two routing.h5 all but times.
void expect_same_record(const std::filesystem::path& found_file, const std::filesystem::path& expected_file);

}  // namespace routescope::testing
