#include "train/checkpoint/checkpoint_job.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "data/base/error.h"
#include "data/base/verified_file.h"
#include "model/files/safetensors.h"

namespace routescope::train {

namespace {

struct GivenUp {};

}  // namespace

std::thread thread_without_signals(std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

CheckpointJob::CheckpointJob(std::filesystem::path dir, std::vector<FileToWrite> files)
    : dir_(std::move(dir)), files_(std::move(files)) {}

CheckpointJob::~CheckpointJob() {
  give_up();
  if (thread_.joinable()) thread_.join();
}

void CheckpointJob::write(const FileToWrite& file) {
  data::VerifiedFile out(dir_ / file.name);
  out.append(file.head.data(), file.head.size());
  for (const kernels::Tensor& tensor : file.data) {
    model::stream_elements(tensor, kernels::DType::f32, [&](const void* data, std::size_t bytes) {
      if (given_up_.load()) throw GivenUp();
      out.append(data, bytes);
    });
  }
  written_.push_back(out.finish());
}

void CheckpointJob::run() {
  try {
    for (const FileToWrite& file : files_) write(file);
  } catch (const GivenUp&) {
    written_.clear();
  } catch (const std::exception& error) {
    error_ = error.what();
    failed_ = true;
  }
  done_.store(true);
}

void CheckpointJob::start() {
  try {
    thread_ = thread_without_signals([this] { run(); });
  } catch (const std::exception& error) {
    error_ = fmt::format("{}: cannot start a thread to write it: {}", dir_.string(), error.what());
    failed_ = true;
    done_.store(true);
  }
}

std::vector<data::ManifestEntry> CheckpointJob::result() {
  if (thread_.joinable()) thread_.join();
  if (failed_) throw data::Error(error_);
  return written_;
}

}  // namespace routescope::train
