// The plan of checkpoints on disk against a run.
#include "train/plan/disk.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>

#include "data/base/manifest.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;

/// Bytes of the numbers of a safetensors file: what follows its header, whose length is its first 8 bytes.
std::int64_t numbers_in(const fs::path& file) {
  std::uint64_t header = 0;
  std::ifstream(file, std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof header);
  return static_cast<std::int64_t>(fs::file_size(file) - sizeof header - header);
}

TEST(CheckpointBytes, AreThoseOfARun) {
  const testing::MicroRun micro;
  const std::vector<std::string> cases[] = {{},
                                            {"checkpoint.keep=3"},
                                            {"checkpoint.keep_state=2"},
                                            {"checkpoint.keep=4", "checkpoint.keep_state=1"},
                                            {"checkpoint.keep_state=2", "checkpoint.weights_dtype=bf16"}};
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const std::string run = "run" + std::to_string(i);
    micro.train(run, cases[i]);
    const CheckpointBytes planned = checkpoint_bytes(micro.config(run, cases[i]));
    std::int64_t checkpoints = 0, with_state = 0, bytes = 0;
    for (const data::CheckpointEntry& entry : data::list_checkpoints(micro.dir(run))) {
      ++checkpoints;
      const fs::path state = entry.dir / "train_state.safetensors";
      const std::int64_t weights = fs::exists(state) ? planned.weights : planned.weights_alone;
      EXPECT_EQ(numbers_in(entry.dir / "model.safetensors"), weights);
      bytes += weights;
      if (!fs::exists(state)) continue;
      ++with_state;
      EXPECT_EQ(numbers_in(state), planned.state);
      bytes += planned.state;
    }
    EXPECT_EQ(checkpoints, planned.checkpoints) << run;
    EXPECT_EQ(with_state, planned.with_state) << run;
    EXPECT_EQ(bytes, planned.total()) << run;
  }
}

}  // namespace
}  // namespace routescope::train
