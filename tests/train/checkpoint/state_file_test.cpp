// Optimizer state that some number of ranks wrote, in stretches that cut parameters anywhere, is read by any other
// number of ranks. Anything missing, stored twice or unknown is an error.
#include "train/checkpoint/state_file.h"

#include <gtest/gtest.h>

#include "data/base/error.h"
#include "kernels/ops.h"
#include "model/files/safetensors.h"
#include "tests/data/base/expect_error.h"
#include "tests/train/checkpoint/checkpoint_case.h"
#include "tests/train/run/micro_run.h"
#include "train/checkpoint/checkpoint_job.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_model;
using testing::checkpoint_state;

/// The optimizer state of one of several ranks that share the flat arrays in pieces of `piece` elements, dealt out in
/// turn. Every rank holds the last `common` elements, and rank 0 writes them.
struct Share {
  Share(const model::ParameterLayout& layout, const kernels::Place& place, std::int64_t piece,
        std::vector<std::string> slots = {"exp_avg", "exp_avg_sq"}, std::int64_t common = 128)
      : state{.slots = std::move(slots), .ranges = {}} {
    for (std::size_t slot = 0; slot < state.slots.size(); ++slot) {
      arrays.emplace_back(kernels::DType::f32, kernels::Device::cpu,
                          std::initializer_list<std::int64_t>{layout.total()});
      kernels::fill(arrays.back().tensor, -1, {});  // a value that no test expects
    }
    const std::int64_t shared = layout.total() - common;
    std::int64_t index = 0;
    for (std::int64_t begin = 0; begin < shared; begin += piece, ++index) {
      if (index % place.size == place.rank) add(begin, std::min(begin + piece, shared), true);
    }
    add(shared, layout.total(), place.rank == 0);
  }
  void add(std::int64_t begin, std::int64_t end, bool written) {
    StateRange range{.begin = begin, .end = end, .state = {}, .parameters = {}, .written = written};
    for (const kernels::OwnedTensor& array : arrays) range.state.push_back(array.tensor.slice(begin, {end - begin}));
    state.ranges.push_back(range);
  }
  std::vector<kernels::OwnedTensor> arrays;
  OptimizerState state;
};

class StateFiles : public ::testing::Test {
 protected:
  data::CheckpointEntry entry() const { return {5, directory_.path()}; }

  void write(const std::vector<StateTensor>& tensors, const kernels::Place& place, const TrainState& state) const {
    std::vector<model::SafetensorsItem> items;
    FileToWrite file{state_file_name(place), "", {}};
    for (const StateTensor& tensor : tensors) {
      items.push_back({tensor.name, tensor.shape, {}});
      file.data.insert(file.data.end(), tensor.parts.begin(), tensor.parts.end());
    }
    file.head = model::safetensors_header(items, state_metadata(state));
    fs::remove(directory_ / file.name);
    CheckpointJob job(directory_.path(), {file});
    job.run();
    ASSERT_EQ(job.result().size(), 1u);
  }

  /// Writes the files of `ranks` ranks. `change` may change what each rank writes.
  void write_all(int ranks, std::int64_t piece,
                 const std::function<void(int, std::vector<StateTensor>&)>& change = nullptr) const {
    for (const auto& old : testing::names_in(directory_.path())) fs::remove(directory_ / old);
    for (int rank = 0; rank < ranks; ++rank) {
      const kernels::Place place{.rank = rank, .size = ranks};
      const Share share(layout_, place, piece);
      testing::set_state(layout_, share.state);
      std::vector<StateTensor> tensors = state_tensors(layout_, share.state);
      if (change) change(rank, tensors);
      write(tensors, place, testing::checkpoint_state(5));
    }
    data::write_manifest(directory_.path());
  }

  void read(int ranks, std::int64_t piece) const {
    for (int rank = 0; rank < ranks; ++rank) {
      const Share share(layout_, {.rank = rank, .size = ranks}, piece);
      EXPECT_GT(testing::wrong_values(layout_, share.state), 0);
      read_optimizer_state(entry(), layout_, share.state);
      EXPECT_EQ(testing::wrong_values(layout_, share.state), 0) << "rank " << rank << " of " << ranks;
    }
  }

  testing::TemporaryDirectory directory_;
  model::ParameterLayout layout_{testing::checkpoint_model()};
};

TEST_F(StateFiles, AnyNumberOfRanksReadsWhatAnyNumberWrote) {
  for (const auto& [writers, readers] : {std::pair{4, 1}, {4, 3}, {1, 4}, {3, 4}, {4, 4}, {1, 1}}) {
    SCOPED_TRACE(fmt::format("{} wrote, {} read", writers, readers));
    write_all(writers, 1008);
    read(readers, 624);
  }
}

TEST_F(StateFiles, NamesSayWhatIsInThem) {
  EXPECT_EQ(state_file_name({}), "train_state.safetensors");
  EXPECT_EQ(state_file_name({.rank = 1, .size = 12}), "train_state-00002-of-00012.safetensors");
  write_all(2, 4000);
  const model::SafetensorsReader first(directory_ / "train_state-00001-of-00002.safetensors");
  // 257 x 32 of the embedding, dealt out in thousands: [0, 4000) and, joined to nothing, [8000, 8224).
  EXPECT_EQ(first.entry("exp_avg.model.embed_tokens.weight[0:4000]").shape, (std::vector<std::int64_t>{4000}));
  EXPECT_EQ(first.entry("exp_avg_sq.model.embed_tokens.weight[8000:8224]").shape, (std::vector<std::int64_t>{224}));
  EXPECT_EQ(first.metadata().at("next_batch"), "8");
  write_all(1, 4000);  // neighbouring pieces of one rank are one tensor
  const model::SafetensorsReader whole(directory_ / "train_state.safetensors");
  EXPECT_EQ(whole.entries().size(), 2 * layout_.all().size());
  EXPECT_EQ(whole.entry("exp_avg.model.embed_tokens.weight").shape, (std::vector<std::int64_t>{257, 32}));
  EXPECT_EQ(whole.entry("exp_avg.model.layers.0.attn_res_bias").shape, std::vector<std::int64_t>{});
}

TEST_F(StateFiles, MissingDuplicateAndUnknownTensorsAreErrors) {
  const std::string embedding = "exp_avg.model.embed_tokens.weight";
  const auto reading = [&] { read(1, 1000); };
  write_all(3, 1000, [](int rank, std::vector<StateTensor>& tensors) {
    if (rank == 1) tensors.erase(tensors.begin());
  });
  data::expect_error(reading, {embedding, "elements 1000 to 2000 of 8224 are in no state file"});
  write_all(3, 1000, [](int rank, std::vector<StateTensor>& tensors) {
    if (rank == 2) tensors.pop_back();
  });
  data::expect_error(reading, {"exp_avg_sq.", "are in no state file"});
  write_all(2, 1000, [&](int rank, std::vector<StateTensor>& tensors) {
    if (rank == 1) tensors.front().name = embedding + "[999:1999]";
  });
  data::expect_error(reading,
                     {"train_state-00002-of-00002", embedding, "elements 999 to 1000 are in train_state-00001"});
  for (const char* name : {"exp_avg.model.layers.9.mlp.up_proj.weight", "exp_avg_cu.model.norm.weight", "exp_avg",
                           "exp_avg.model.embed_tokens.weight[8000:8225]", "exp_avg.model.embed_tokens.weight[5:5]",
                           "exp_avg.model.embed_tokens.weight[-1:5]", "exp_avg.model.embed_tokens.weight[5]",
                           "exp_avg.model.embed_tokens.weight[0:1000"}) {
    write_all(2, 1000, [&](int rank, std::vector<StateTensor>& tensors) {
      if (rank == 0) tensors.front().name = name;
    });
    data::expect_error(reading,
                       {"train_state-00001-of-00002", std::string(name) + ":", "expected only exp_avg, exp_avg_sq"});
  }
  // A name that promises more elements than the tensor has.
  write_all(2, 1000, [&](int rank, std::vector<StateTensor>& tensors) {
    if (rank == 0) tensors.front().name = embedding + "[0:1001]";
  });
  data::expect_error(reading, {embedding + "[0:1001]", "found 1000 elements, expected 1001"});
}

// Another update rule has other slots, and its state is not mistaken for AdamW's.
TEST_F(StateFiles, SlotsAreThoseOfTheUpdateRule) {
  const Share momentum(layout_, {}, 1000, {"momentum"});
  testing::set_state(layout_, momentum.state);
  write(state_tensors(layout_, momentum.state), {}, testing::checkpoint_state(5));
  data::write_manifest(directory_.path());
  const model::SafetensorsReader file(directory_ / "train_state.safetensors");
  EXPECT_EQ(file.entries().size(), layout_.all().size());
  EXPECT_EQ(file.entry("momentum.model.embed_tokens.weight").shape, (std::vector<std::int64_t>{257, 32}));
  const Share again(layout_, {}, 1000, {"momentum"});
  read_optimizer_state(entry(), layout_, again.state);
  EXPECT_EQ(testing::wrong_values(layout_, again.state), 0);
  data::expect_error([&] { read(1, 1000); },
                     {"train_state.safetensors: momentum.", "expected only exp_avg, exp_avg_sq"});
}

TEST_F(StateFiles, TheSetIsWholeAndOfOneCheckpoint) {
  write_all(3, 1000);
  EXPECT_EQ(state_metadata(read_train_state(entry())), state_metadata(testing::checkpoint_state(5)));
  data::expect_error([&] { read_train_state({6, directory_.path()}); }, {"metadata step: found 5, expected 6"});
  // One rank's file is from another point of the run.
  const kernels::Place second{.rank = 1, .size = 3};
  const Share share(layout_, second, 1000);
  TrainState other = testing::checkpoint_state(5);
  other.next_batch = 9;
  write(state_tensors(layout_, share.state), second, other);
  data::write_manifest(directory_.path());
  data::expect_error([&] { read_train_state(entry()); }, {"00002-of-00003", "next_batch: found 9, expected 8"});
  other.next_batch = -1;
  for (const int rank : {0, 1, 2}) write(state_tensors(layout_, share.state), {.rank = rank, .size = 3}, other);
  data::write_manifest(directory_.path());
  data::expect_error([&] { read_train_state(entry()); }, {"next_batch: found '-1', expected an integer of at least 0"});
  fs::remove(directory_ / state_file_name(second));
  data::write_manifest(directory_.path());
  for (const std::function<void()>& reading :
       {std::function<void()>([&] { read_train_state(entry()); }), std::function<void()>([&] { read(1, 1000); })})
    data::expect_error(reading, {"lists 2 state files, expected train_state-00002-of-00003.safetensors among them"});
  fs::copy(directory_ / state_file_name({.rank = 0, .size = 3}), directory_ / state_file_name(second));
  fs::copy(directory_ / state_file_name({.rank = 0, .size = 3}), directory_ / state_file_name({}));
  data::write_manifest(directory_.path());
  data::expect_error([&] { read_train_state(entry()); }, {"lists 4 state files, expected 3"});
}

// For a checkpoint of an earlier version the error names the missing key.
TEST_F(StateFiles, AnEarlierVersionsStateNamesTheMissingKey) {
  const Share share(layout_, {}, 1000);
  std::vector<model::SafetensorsItem> items{{"exp_avg.x", {1}, share.arrays[0].tensor.slice(0, {1})}};
  std::map<std::string, std::string> metadata = state_metadata(testing::checkpoint_state(5));
  metadata.erase("next_batch");
  model::write_safetensors(directory_ / state_file_name({}), items, metadata);
  data::write_manifest(directory_.path());
  data::expect_error([&] { read_train_state(entry()); },
                     {"train_state.safetensors: metadata next_batch: found nothing", "earlier version"});
}

}  // namespace
}  // namespace routescope::train
