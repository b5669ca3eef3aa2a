// What one rank writes of a checkpoint, in this thread or in one of its own. It computes nothing and talks to no other
// rank.
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

/// A file: a text, then numbers as f32.
struct FileToWrite {
  std::string name;
  std::string head;
  std::vector<kernels::Tensor> data;
};

/// Signals are the main thread's business, and a write past a limit on file sizes is to fail, not to end the process.
/// Throws std::system_error.
std::thread thread_without_signals(std::function<void()> body);

class CheckpointJob {
 public:
  /// Writes `files` into `dir`, which exists, each synced and read back.
  CheckpointJob(std::filesystem::path dir, std::vector<FileToWrite> files);
  /// Gives up.
  ~CheckpointJob();
  CheckpointJob(const CheckpointJob&) = delete;
  CheckpointJob& operator=(const CheckpointJob&) = delete;

  void run();
  /// run() in a thread of its own.
  void start();

  bool done() const { return done_.load(); }
  /// Only once done(): whether it did not succeed.
  bool failed() const { return failed_; }
  /// The rest need not be written.
  void give_up() { given_up_.store(true); }
  /// Waits. The files as they are on disk. Throws Error if one could not be written; none are returned after give_up().
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
