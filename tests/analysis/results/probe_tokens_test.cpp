// Where the tokens of a probe come from, and which document each sequence is of.
#include "analysis/results/probe_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "data/hdf5/file.h"
#include "data/tokens/documents.h"
#include "data/tokens/shard_writer.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/older_record.h"

namespace routescope::analysis {
namespace {

using Ids = std::vector<std::int32_t>;
using Numbers = std::vector<std::int64_t>;

constexpr std::int32_t kEnd = 36;  // of the micro model's vocabulary of 37

model::ModelConfig config_with(Numbers ends) {
  model::ModelConfig config = testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  config.eos_token_id = std::move(ends);
  return config;
}

/// `documents` documents of 20 tokens each; every token is the number of its document modulo 36.
Ids stream_of(std::int32_t documents) {
  Ids ids;
  for (std::int32_t d = 0; d < documents; ++d) {
    ids.insert(ids.end(), 19, d % 36);
    ids.push_back(kEnd);
  }
  return ids;
}

class ProbeTokensTest : public ::testing::Test {
 protected:
  std::string shard(const std::string& name, const Ids& ids) const {
    data::ShardWriter writer(dir_ / name, 37);
    writer.append(ids);
    writer.finish();
    return (dir_ / name).string();
  }
  template <class T>
  std::string hdf5(const std::string& name, const char* dataset, const std::vector<T>& documents) const {
    data::hdf5::File file = data::hdf5::File::create(dir_ / name);
    file.write("tokens", Ids(3 * 8, 5), {3, 8});
    file.write(dataset, documents, {std::ssize(documents)});
    file.close();
    return (dir_ / name).string();
  }
  data::TempDir dir_;
  const model::ModelConfig config_ = config_with({kEnd});
};

TEST_F(ProbeTokensTest, OfAShardAreWindowsOfDifferentDocuments) {
  const std::string file = shard("a.bin", stream_of(50));
  const ProbeTokens tokens = load_probe_tokens(file, 0, 10, config_);
  ASSERT_EQ(tokens.sequences, 32);
  ASSERT_EQ(tokens.documents.size(), 32U);
  EXPECT_EQ(tokens.origin, "a.bin");
  for (std::size_t q = 0; q < 32; ++q) {
    if (q > 0) {
      EXPECT_GT(tokens.documents[q], tokens.documents[q - 1]);
    }
    for (std::size_t i = 0; i < 10; ++i)
      EXPECT_TRUE(tokens.ids[q * 10 + i] == tokens.documents[q] % 36 || tokens.ids[q * 10 + i] == kEnd);
  }
  EXPECT_GT(tokens.documents.back(), 45) << "of the whole shard, not of its beginning";
  EXPECT_EQ(load_probe_tokens(file, 7, 10, config_).documents.size(), 7U);
  // Without end-of-document ids, windows over the whole shard of documents that are not known.
  const ProbeTokens unknown = load_probe_tokens(file, 4, 10, config_with({}));
  EXPECT_TRUE(unknown.documents.empty());
  EXPECT_GT(unknown.ids.back() + unknown.ids.front(), 5);
  EXPECT_NE(data::error_of([&] { load_probe_tokens(file, 101, 10, config_); }).find("expected 101"), std::string::npos);
  const std::string bad = shard("bad.bin", Ids{1, 2, 3, 36, 4, 36});
  model::ModelConfig small = config_with({3});
  small.vocab_size = 36;
  EXPECT_NE(data::error_of([&] { load_probe_tokens(bad, 0, 3, small); }).find("token 3: found id 36, expected 0 to 35"),
            std::string::npos);
}

TEST_F(ProbeTokensTest, AlignedShardsHaveTheSameWindows) {
  const Ids stream = stream_of(20);
  Ids ids = stream;
  const std::string a = shard("a.bin", ids);
  std::iota(ids.begin(), ids.end(), 0);
  for (std::int32_t& id : ids) id = id / 10 % 36;  // another text, with ends of documents elsewhere
  const std::string b = shard("b.bin", ids);
  const ProbeTokens tokens = load_probe_tokens(a, 6, 10, config_);
  const data::TokenWindows windows = data::choose_windows(data::source_of(stream), config_.eos_token_id, 10, 6);
  const ProbeTokens aligned = load_aligned_tokens(b, tokens, a, config_);
  ASSERT_EQ(aligned.ids.size(), tokens.ids.size());
  for (std::size_t i = 0; i < aligned.ids.size(); ++i)
    EXPECT_EQ(aligned.ids[i], ids[static_cast<std::size_t>(windows.begin[i / 10]) + i % 10]);
  // Beside tokens that are no shard: its first windows.
  EXPECT_EQ(load_aligned_tokens(b, tokens, "", config_).ids, Ids(ids.begin(), ids.begin() + 60));
}

TEST_F(ProbeTokensTest, AFileMayNameDocuments) {
  const auto documents = [&](const std::string& file) { return load_probe_tokens(file, 0, 10, config_).documents; };
  EXPECT_EQ(documents(hdf5("a.h5", "documents", Numbers{4, 4, 1})), (Numbers{4, 4, 1}));
  EXPECT_EQ(documents(hdf5("b.h5", "probe_document", Ids{0, 1, 2})), (Numbers{0, 1, 2}));
  EXPECT_EQ(documents(hdf5("c.h5", "probe_document", Numbers{-1, -1, -1})), Numbers{});
  EXPECT_EQ(documents(hdf5("d.h5", "other", Numbers{1})), Numbers{});
  EXPECT_EQ(load_probe_tokens(hdf5("e.h5", "documents", Numbers{4, 4, 1}), 2, 10, config_).documents, (Numbers{4, 4}));
  EXPECT_EQ(documents("1, 2, 3"), Numbers{0});
  const auto refused = [&](const std::string& file) { return data::error_of([&] { documents(file); }); };
  EXPECT_NE(refused(hdf5("f.h5", "documents", Numbers{1, 2}))
                .find("f.h5: /documents: found int64 [2], expected integers [3]"),
            std::string::npos);
  EXPECT_NE(refused(hdf5("g.h5", "documents", std::vector<double>{1, 2, 3})).find("/documents: found float64 [3]"),
            std::string::npos);
  EXPECT_NE(refused(hdf5("h.h5", "documents", Numbers{1, -2, 3})).find("sequence 1: found document -2"),
            std::string::npos);
}

TEST_F(ProbeTokensTest, OfARunAreThoseOfItsRecord) {
  testing::make_run(dir_ / "run", config_, {0});
  const std::filesystem::path record = dir_ / "run" / "routing.h5";
  // The record of these runs does not know documents; no token ends one.
  EXPECT_TRUE(run_probe_tokens(dir_ / "run", config_with({})).documents.empty());
  // An older one: its windows are consecutive, so ends of documents within them are counted.
  Ids ids(60, 5);
  for (const std::size_t end : {3U, 12U, 14U, 39U, 40U}) ids[end] = kEnd;
  testing::make_version_1_1(record, ids);
  const Numbers counted{0, 1, 3, 3, 3, 4};  // 39 and 40 are one border
  EXPECT_EQ(run_probe_tokens(dir_ / "run", config_).documents, counted);
  EXPECT_EQ(load_probe_tokens(record.string(), 0, 10, config_).documents, counted);
  EXPECT_TRUE(run_probe_tokens(dir_ / "run", config_with({30})).documents.empty());
  data::hdf5::File file = data::hdf5::File::open_writable(record);
  file.write("probe_document", Numbers{7, 7, 8, 9, 9, 9}, {6});
  file.close();
  EXPECT_EQ(run_probe_tokens(dir_ / "run", config_).documents, (Numbers{7, 7, 8, 9, 9, 9}));
}

TEST(DocumentsWarning, StandsWhereThereAreTooFewDocuments) {
  ProbeTokens tokens{40, 2, Ids(80, 1), "x"};
  EXPECT_EQ(documents_warning(tokens).find("warning: the documents of 40 sequences are not known"), 0U);
  for (std::int64_t q = 0; q < 40; ++q) tokens.documents.push_back(q % least_documents);
  EXPECT_EQ(documents_warning(tokens), "");
  for (std::int64_t& document : tokens.documents) document = std::min<std::int64_t>(document, least_documents - 2);
  EXPECT_EQ(
      documents_warning(tokens),
      "warning: 40 sequences of 15 documents, expected 16 documents or more: intervals and tests count documents");
  EXPECT_EQ(documents_warning({1, 2, {1, 2}, "ids", {0}}),
            "warning: 1 sequence of 1 document, expected 16 documents or more: intervals and tests count documents");
}

}  // namespace
}  // namespace routescope::analysis
