// Probe sequences are of different documents, the same for every number of ranks, and those of its record for a run
// that goes on.
#include "train/run/probe_sequences.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "data/records/routing_view.h"
#include "data/tokens/shard_writer.h"
#include "model/pass/pass.h"
#include "tests/data/records/older_record.h"
#include "tests/train/run/micro_run.h"
#include "tests/train/run/strict_ranks.h"
#include "train/checkpoint/checkpoint_search.h"
#include "train/run/recorder.h"

namespace routescope::train {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kLength = 16, kSequences = 6;

class ProbeSequencesTest : public ::testing::Test {
 protected:
  // 40 documents of 20 to 59 tokens. Every token of a document is its number, and 256 ends it.
  ProbeSequencesTest() {
    Ids ids;
    for (std::int32_t document = 0; document < 40; ++document) {
      ids.insert(ids.end(), static_cast<std::size_t>(19 + document), document);
      ids.push_back(256);
    }
    write("documents.bin", ids);
  }
  void write(const std::string& name, const Ids& ids) const {
    data::ShardWriter writer(micro_.dir(name), 257);
    writer.append(ids);
    writer.finish();
  }
  std::vector<std::string> keys(const std::string& shard, std::vector<std::string> more = {}) const {
    more.insert(more.begin(),
                {"data.valid=[" + micro_.dir(shard).string() + "]", "routing.sequences=" + std::to_string(kSequences)});
    return more;
  }
  data::RoutingRecordInfo info(const std::string& run) const {
    return data::RoutingRecordView::load(micro_.dir(run) / "routing.h5").info;
  }
  ProbeSequences found(const TrainConfig& config, kernels::Communicator& communicator) const {
    return find_probe_sequences(config, Streams(config), {}, communicator);
  }
  // The snapshot of the last step of a run, measured again.
  data::RoutingSnapshot measured_again(const TrainConfig& config, const Ids& tokens) const {
    const auto newest = newest_intact_checkpoint(config.run.dir, *kernels::single_communicator());
    model::Model model = start_model(config, 1, newest);
    model::Pass pass(model, config.train.micro_batch, kLength, model::Pass::Kind::train, config.pass_options());
    const RoutingRecorder recorder(model, {tokens, {}}, kLength);
    return recorder.snapshot(pass, *kernels::single_communicator(), newest->step, 0, nullptr);
  }
  data::RoutingSnapshot last_snapshot(const std::string& run) const {
    return data::RoutingRecordView::load(micro_.dir(run) / "routing.h5").snapshots.back();
  }

  testing::MicroRun micro_;
};

TEST_F(ProbeSequencesTest, AreOfDifferentDocumentsForTheWholeRun) {
  micro_.train("whole", keys("documents.bin"));
  const data::RoutingRecordInfo whole = info("whole");
  ASSERT_EQ(std::ssize(whole.probe_documents), kSequences);
  for (std::size_t q = 0; q < kSequences; ++q) {
    if (q > 0) {
      EXPECT_GT(whole.probe_documents[q], whole.probe_documents[q - 1] + 3) << "spread over the stream";
    }
    for (std::size_t i = 0; i < kLength; ++i) {
      const std::int64_t id = whole.probe_tokens[q * kLength + i];
      EXPECT_TRUE(id == whole.probe_documents[q] || id == 256);
    }
  }
  // Snapshots are of these tokens.
  const data::RoutingSnapshot again = measured_again(micro_.config("whole", keys("documents.bin")), whole.probe_tokens);
  EXPECT_EQ(last_snapshot("whole").alpha_entropy, again.alpha_entropy);

  struct Crash {};
  EXPECT_THROW(
      micro_.train("cut", keys("documents.bin"), [](std::int64_t step) { return step == 7 ? throw Crash() : 0; }),
      Crash);
  micro_.train("cut", keys("documents.bin"));
  testing::expect_same_run(micro_.dir("cut"), micro_.dir("whole"));
}

TEST_F(ProbeSequencesTest, AreTheSameOnEveryRank) {
  const TrainConfig config = micro_.config("unused", keys("documents.bin"));
  const ProbeSequences one = found(config, *kernels::single_communicator());
  testing::StrictRanks::run(3, [&](kernels::Communicator& communicator) {
    const ProbeSequences here = found(config, communicator);
    EXPECT_EQ(here.tokens, one.tokens);
    EXPECT_EQ(here.documents, one.documents);
  });
}

TEST_F(ProbeSequencesTest, EndOfDocumentIsWhatTheModelSaysItIs) {
  Ids ids;
  for (std::int32_t i = 0; i < 800; ++i) ids.push_back(i % 40 == 39 ? 300 + i % 2 : i % 256);
  data::ShardWriter writer(micro_.dir("own.bin"), 302);
  writer.append(ids);
  writer.finish();
  const auto documents = [&](const std::string& key) {
    std::vector<std::string> more{"model.vocab_size=302"};
    if (!key.empty()) more.push_back(key);
    return found(micro_.config("unused", keys("own.bin", more)), *kernels::single_communicator()).documents;
  };
  EXPECT_TRUE(documents("").empty());
  EXPECT_EQ(documents("model.eos_token_id=301").size(), 6U);
  EXPECT_EQ(documents("model.eos_token_id=[301, 5]").size(), 6U);
  EXPECT_TRUE(documents("model.eos_token_id=299").empty());
  EXPECT_EQ(documents("model.bos_token_id=301").size(), 6U);
}

// The tokens of the record count, not those that would be chosen today.
TEST_F(ProbeSequencesTest, ARecordOfAnOlderVersionKeepsItsTokens) {
  micro_.train("older", keys("documents.bin"), [](std::int64_t step) { return step == 6 ? 15 : 0; });
  const TrainConfig config = micro_.config("older", keys("documents.bin"));
  const Ids first_windows = Streams(config).valid_batches.in_order(0, kSequences).inputs;
  ASSERT_NE(info("older").probe_tokens, first_windows);
  testing::make_version_1_1(micro_.dir("older") / "routing.h5", first_windows);

  micro_.train("older", keys("documents.bin"));
  EXPECT_EQ(info("older").probe_tokens, first_windows);
  EXPECT_TRUE(info("older").probe_documents.empty());
  EXPECT_EQ(last_snapshot("older").step, 12);
  EXPECT_EQ(last_snapshot("older").alpha_mean[0], measured_again(config, first_windows).alpha_mean[0]);
  EXPECT_EQ(last_snapshot("older").alpha_entropy, measured_again(config, first_windows).alpha_entropy);
  EXPECT_NE(last_snapshot("older").alpha_entropy,
            measured_again(config, found(config, *kernels::single_communicator()).tokens).alpha_entropy);
}

}  // namespace
}  // namespace routescope::train
