// A fixture that writes checkpoints by one process.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "data/base/error.h"
#include "data/base/manifest.h"
#include "tests/train/checkpoint/checkpoint_case.h"
#include "tests/train/run/micro_run.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace routescope::testing {

/// A model with a known optimizer state, and writers of it into one run directory.
class Checkpoints : public ::testing::Test {
 protected:
  Checkpoints() : model_(checkpoint_model(), {}) {
    omp_set_num_threads(1);  // a forked process has no pool of threads
    model_.initialize(3);
    set_state(model_.layout(), optimizer_.state());
  }
  std::unique_ptr<train::CheckpointWriter> writer(bool async, std::int64_t keep = 0, std::int64_t intact = -1,
                                                  std::int64_t keep_state = 0,
                                                  kernels::DType weights_dtype = kernels::DType::f32) {
    return std::make_unique<train::CheckpointWriter>(
        dir(), model_, optimizer_, *alone_,
        train::CheckpointWriter::Options{
            .async = async, .keep = keep, .keep_state = keep_state, .weights_dtype = weights_dtype, .intact = intact});
  }
  /// Settles, as training does after each step, until the run directory holds the checkpoints `names`.
  void settle_until(train::CheckpointWriter& writer, const std::vector<std::string>& names) const {
    for (int i = 0; i < 1000 && checkpoint_names(dir()) != names; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      writer.settle(train::CheckpointWriter::nothing_to_do);
    }
    EXPECT_EQ(checkpoint_names(dir()), names);
  }
  static train::TrainState state(std::int64_t step, std::int64_t skipped) {
    train::TrainState out = checkpoint_state(step);
    out.skipped = skipped;
    return out;
  }
  void write(train::CheckpointWriter& writer, std::int64_t step, std::int64_t skipped = 0) {
    writer.begin(state(step, skipped));
    writer.finish();
    EXPECT_EQ(writer.completed(), step);
  }
  std::filesystem::path dir() const { return directory_.path(); }
  std::filesystem::path at(std::int64_t step) const { return data::checkpoint_dir(dir(), step); }
  static void flip(const std::filesystem::path& file, std::uintmax_t at, int mask) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(stream.get() ^ mask);
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(byte);
  }
  static std::string error_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const data::Error& error) {
      return error.what();
    }
    return "no error";
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<kernels::Communicator> alone_ = kernels::single_communicator();
  model::Model model_;
  train::Optimizer optimizer_{model_, {}, *alone_, {}};
};

}  // namespace routescope::testing
