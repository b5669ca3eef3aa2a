// Task files: what their lines become, and what is said of lines that are none.
#include "analysis/results/task_file.h"

#include <gtest/gtest.h>

#include "data/base/error.h"

namespace routescope::analysis {
namespace {

constexpr const char* two_prompts =
    R"({"clean": [3, 4, 5], "corrupted": [6, 7, 8], "answer": 9, "distractor": 10, "group": "a"}
{"clean": [1, 2], "corrupted": [2, 1], "answer": [0], "distractor": [11], "group": "a"}
)";

TEST(TaskFile, PromptsAreFollowedByTheirAnswersAndPadding) {
  const Task task = parse_task(two_prompts, "dir/mine.jsonl", 12);
  EXPECT_EQ(task.run.sequences, 2);
  EXPECT_EQ(task.run.positions, 4);
  EXPECT_EQ(task.run.ids, (std::vector<std::int32_t>{3, 4, 5, 9, 1, 2, 0, 0}));
  EXPECT_EQ(task.donors.ids, (std::vector<std::int32_t>{6, 7, 8, 9, 2, 1, 0, 0}));
  EXPECT_EQ(task.run.answers, (std::vector<Answer>{{2, 10}, {1, 11}}));
  EXPECT_EQ(task.run.documents, (std::vector<std::int64_t>{0, 0}));
  EXPECT_EQ(task.run.targets(0, 2), (std::vector<std::int32_t>{-1, -1, 9, -1, -1, 0, -1, -1}));
  EXPECT_EQ(task.run.targets(1, 1), (std::vector<std::int32_t>{-1, 0, -1, -1}));
  EXPECT_EQ(task.run.origin, "mine.jsonl, clean");
  EXPECT_EQ(task.sha256.size(), 64U);
}

TEST(TaskFile, DenoisingTurnsThePromptsAround) {
  const Task noising = parse_task(two_prompts, "f", 12),
             denoising = parse_task(two_prompts, "f", 12, Direction::denoising);
  EXPECT_EQ(denoising.run.ids, noising.donors.ids);
  EXPECT_EQ(denoising.donors.ids, noising.run.ids);
  EXPECT_EQ(denoising.run.answers, noising.run.answers);
}

TEST(TaskFile, TextIsBytesAndOptionalKeysMayBeMissing) {
  const Task task = parse_task("{\"clean\": \"ab\u00e9\", \"answer\": \"c\"}", "f", 257);
  EXPECT_EQ(task.run.ids, (std::vector<std::int32_t>{'a', 'b', 0xC3, 0xA9, 'c'}));
  EXPECT_EQ(task.run.answers, (std::vector<Answer>{{3, -1}}));
  EXPECT_EQ(task.donors.sequences, 0);
  EXPECT_EQ(task.run.documents, (std::vector<std::int64_t>{0}));
}

TEST(TaskFile, GroupsAreDocumentsWhereverTheyStand) {
  const Task task = parse_task(R"({"clean": [1, 2], "answer": 3, "group": 7}
{"clean": [1, 2], "answer": 3, "group": "7"}
{"clean": [1, 2], "answer": 3, "group": 7})",
                               "f", 12);
  EXPECT_EQ(task.run.documents, (std::vector<std::int64_t>{0, 1, 0}));
}

struct Bad {
  const char* name;
  std::string text, message;  // message: a part of it
};
void PrintTo(const Bad& bad, std::ostream* out) {
  *out << bad.name;
}

class BadTaskFile : public ::testing::TestWithParam<Bad> {};

TEST_P(BadTaskFile, IsRefusedInOneLineThatSaysWhere) {
  try {
    parse_task(GetParam().text, "bad.jsonl", 12);
    FAIL() << "expected an error";
  } catch (const data::Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("bad.jsonl: ")) << message;
  }
}

const std::string good = R"({"clean": [1, 2], "answer": 3})";

INSTANTIATE_TEST_SUITE_P(
    Kinds, BadTaskFile,
    ::testing::Values(
        Bad{"Empty", "", "found no line"}, Bad{"Json", good + "\n{\"clean\": [1,", "line 2: not JSON"},
        Bad{"EmptyLine", good + "\n\n" + good, "line 2: found an empty line"},
        Bad{"NoObject", "[1, 2]", "line 1: found [1,2], expected a JSON object"},
        Bad{"NoClean", R"({"answer": 3})", "line 1: clean: found nothing"},
        Bad{"NoAnswer", R"({"clean": [1, 2]})", "line 1: answer: found nothing"},
        Bad{"UnknownKey", R"({"clean": [1, 2], "answer": 3, "wrong": 4})", "line 1: found the key 'wrong', expected"},
        Bad{"KeyTwice", R"({"clean": [1, 2], "answer": 3, "answer": 4})", "found a second time"},
        Bad{"OtherKeys", good + "\n" + R"({"clean": [1, 2], "answer": 3, "distractor": 4})",
            "line 2: found distractor, expected none of"},
        Bad{"Lengths", R"({"clean": [1, 2], "corrupted": [1, 2, 3], "answer": 3})",
            "line 1: corrupted: found 3 tokens, expected 2"},
        Bad{"Large", R"({"clean": [1, 12], "answer": 3})", "line 1: clean: found id 12, expected 0 to 11"},
        Bad{"Negative", R"({"clean": [1, 2], "answer": -1})", "line 1: answer: found id -1"},
        Bad{"Huge", R"({"clean": [1, 2], "answer": 99999999999999999999})", "line 1: answer: found"},
        Bad{"Fraction", R"({"clean": [1, 2.5], "answer": 3})", "line 1: clean[1]: found 2.5, expected an integer"},
        Bad{"Text", R"({"clean": "ab", "answer": 3})", "line 1: clean: found text, expected token ids"},
        Bad{"LongAnswer", R"({"clean": [1, 2], "answer": [3, 4]})", "line 1: answer: found 2 tokens, expected one"},
        Bad{"NoToken", R"({"clean": [1, 2], "answer": []})", "line 1: answer: found 0 tokens, expected one"},
        Bad{"Short", R"({"clean": [1], "answer": 3})",
            "line 1: clean: found a prompt of 1 tokens, expected at least 2"},
        Bad{"SameDistractor", R"({"clean": [1, 2], "answer": 3, "distractor": 3})",
            "line 1: distractor: found the answer"},
        Bad{"Group", R"({"clean": [1, 2], "answer": 3, "group": [1]})", "line 1: group: found [1]"},
        Bad{"Bytes", "{\"clean\": \"\xff\xfe\", \"answer\": 3}", "line 1: not JSON"},
        Bad{"Deep", "{\"clean\": " + std::string(100000, '[') + ", \"answer\": 3}",
            "line 1: found brackets nested deeper"},
        Bad{"Null", std::string("{\"clean\": [1, 2]\0}", 18), "line 1: not JSON: found a NUL byte"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(TaskFile, LongTextAnswersAreRefusedAndDenoisingNeedsCorruptedPrompts) {
  EXPECT_THROW(parse_task(R"({"clean": "ab", "answer": "cd"})", "f", 257), data::Error);
  EXPECT_NO_THROW(parse_task(R"({"clean": "ab", "answer": "c"})", "f", 257));
  EXPECT_THROW(parse_task(good, "f", 12, Direction::denoising), data::Error);
}

/// A long prompt makes all sequences long.
TEST(TaskFile, PaddingIsBounded) {
  std::string text = R"({"clean": [1)";
  for (int i = 0; i < 40000; ++i) text += ",1";
  text += "], \"answer\": 3}\n";
  for (int i = 0; i < 7000; ++i) text += good + "\n";
  EXPECT_THROW(parse_task(text, "f", 12), data::Error);
}

}  // namespace
}  // namespace routescope::analysis
