// What one rank writes of a checkpoint, in the calling thread or in a thread of its own. A job computes nothing and
// does not communicate with other ranks.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "data/base/manifest.h"
#include "kernels/tensor.h"

namespace routescope::train {

/// A file: a text, followed by numbers as f32.
struct FileToWrite {
  std::string name;
  std::string head;
  std::vector<kernels::Tensor> data;
};

/// A thread that blocks all signals: only the main thread handles them. In particular a write beyond the limit on file
/// sizes fails instead of ending the process. Throws std::system_error.
std::thread thread_without_signals(std::function<void()> body);

class CheckpointJob {
 public:
  /// Writes `files` into the existing directory `dir`. Each file is synced and read back.
  CheckpointJob(std::filesystem::path dir, std::vector<FileToWrite> files);
  /// Gives up and waits for the thread.
  ~CheckpointJob();
  CheckpointJob(const CheckpointJob&) = delete;
  CheckpointJob& operator=(const CheckpointJob&) = delete;

  /// Writes in the calling thread.
  void run();
  /// Writes in a thread of its own.
  void start();

  bool done() const { return done_.load(); }
  /// Whether the job failed. Call it only once done().
  bool failed() const { return failed_; }
  /// Tells the job not to write the rest.
  void give_up() { given_up_.store(true); }
  /// Waits for the thread and returns the files as they are on disk; none after give_up(). Throws Error if one could
  /// not be written.
  std::vector<data::ManifestEntry> result();

 private:
  void write(const FileToWrite& file);

  std::filesystem::path dir_;
  std::vector<FileToWrite> files_;
  std::vector<data::ManifestEntry> written_;
  std::string error_;
  bool failed_ = false;
  std::atomic<bool> done_ = false, given_up_ = false;
  std::thread thread_;
};

}  // namespace routescope::train
