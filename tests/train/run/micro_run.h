// A run that takes a fraction of a second: a micro model on a seeded stream, in a directory of its own, either in this
// process or through the real binary; and what it means for two runs to be the same.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/run/loop.h"

namespace routescope::testing {

/// A fresh directory, removed at the end.
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
  /// Starts routescope-train, alone or (ranks > 0) as so many ranks under mpirun, which is the child then; `prepare`
  /// runs in the child before it becomes that program.
  pid_t start(const std::string& run, const std::vector<std::string>& overrides = {},
              const std::function<void()>& prepare = nullptr, int ranks = 0) const;
  /// Waits for what start() started.
  Finished wait(pid_t child, const std::string& run) const;
  Finished execute(const std::string& run, const std::vector<std::string>& overrides = {},
                   const std::function<void()>& prepare = nullptr, int ranks = 0) const;

 private:
  TemporaryDirectory directory_;
};

/// The processes that `parent` started and that live, in the order of their numbers: of mpirun, its ranks in order.
std::vector<pid_t> children_of(pid_t parent);

/// Names of the checkpoints, in order: "step-00000000", ...
std::vector<std::string> checkpoint_names(const std::filesystem::path& run_dir);

/// Fails the test unless both runs hold the same checkpoints (of those steps that both have, and the last), byte for
/// byte, and the same record, value for value but for timings.
void expect_same_run(const std::filesystem::path& found, const std::filesystem::path& expected);

}  // namespace routescope::testing
