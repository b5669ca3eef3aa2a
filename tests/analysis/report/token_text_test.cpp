// Token ids become text that a person can read, whatever vocabulary they are of.
#include "analysis/report/token_text.h"

#include <gtest/gtest.h>

#include "data/base/error.h"
#include "data/base/files.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

TEST(TokenTextTest, ReadsByteLevelVocabularies) {
  data::TempDir dir;
  data::write_text_atomically(dir / "tokenizer.json",
                              R"({"model": {"vocab": {"\u0120the": 0, "\u010a": 1, "\u00e2\u0122\u013b": 2,
      "\u00e2": 3, "<": 4, "\u00c3\u00a9": 5}}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
      "added_tokens": [{"id": 6, "content": "<|end|>"}]})");
  const TokenText text = TokenText::load(dir / "tokenizer.json");
  EXPECT_EQ(text(0), " the");
  EXPECT_EQ(text(1), "\n");
  EXPECT_EQ(text(2), "\u2019");
  EXPECT_EQ(text(3), "\\xE2");  // a piece of a character
  EXPECT_EQ(text(4), "<");
  EXPECT_EQ(text(5), "\u00e9");
  EXPECT_EQ(text(6), "<|end|>");
  EXPECT_EQ(text(7), "<7>");
}

TEST(TokenTextTest, ReadsPiecesBytesAndNumbers) {
  data::TempDir dir;
  data::write_text_atomically(dir / "unigram.json",
                              R"({"model": {"vocab": [["<unk>", 0], ["\u2581a\u2581b", -1.5], ["<0x0A>", -2]]}})");
  const TokenText pieces = TokenText::load(dir / "unigram.json");
  EXPECT_EQ(pieces(1), " a b");
  EXPECT_EQ(pieces(2), "\n");
  EXPECT_EQ(TokenText::builtin(257)('a'), "a");
  EXPECT_EQ(TokenText::builtin(257)(0xC3), "\\xC3");
  EXPECT_EQ(TokenText::builtin(257)(256), "<256>");
  EXPECT_EQ(TokenText::builtin(4096)(97), "97 ");
  data::write_text_atomically(dir / "other.json", "{}");
  EXPECT_THROW(TokenText::load(dir / "other.json"), data::Error);
}

}  // namespace
}  // namespace routescope::analysis
