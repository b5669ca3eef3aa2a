// JSON from outside: what is refused, and that values are read without conversions.
#include "data/base/json.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

std::string nested(std::size_t depth, const std::string& open, const std::string& close) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += open;
  for (std::size_t i = 0; i < depth; ++i) text += close;
  return text;
}

void expect_refused(const std::string& text, const std::string& why) {
  expect_error([&] { parse_json(text, "f.json"); }, {"f.json: ", why});
  EXPECT_EQ(error_of([&] { parse_json(text, "f.json"); }).find("json.exception"), std::string::npos);
  EXPECT_LT(error_of([&] { parse_json(text, "f.json"); }).size(), 300U);
}

TEST(Json, DeepNestingIsRefused) {
  parse_json(nested(64, "[", "]"), "f.json");
  expect_refused(nested(65, "[", "]"), "nested deeper than 64");
  expect_refused(nested(80'000, "[", "]"), "nested deeper than 64");
  expect_refused(nested(80'000, "{\"a\":[", "]}"), "nested deeper than 64");
  expect_refused(std::string(80'000, '['), "nested deeper than 64");
}

TEST(Json, AKeyThatAnObjectHasTwiceIsRefused) {
  EXPECT_EQ(parse_json(R"({"a": {"b": 1}, "c": {"b": 2}})", "f.json").size(), 2U);
  expect_refused(R"({"a": 1, "b": 2, "a": 1})", "\"a\": found a second time, expected once");
  expect_refused(R"([{"x": {"a": 1, "\u0061": 1}}])", "\"a\": found a second time");
  expect_refused("{\"" + std::string(5000, 'k') + "\": 1, \"" + std::string(5000, 'k') + "\": 1}", "a second time");
}

TEST(Json, ReasonsNameThePlaceAndAreShort) {
  expect_refused("", "not JSON: line 1, column 1");
  expect_refused("{\n\"a\": nul", "not JSON: line 2");
  expect_refused("1e999", "not JSON: number overflow");
  expect_refused("[" + std::string(400, '9') + "e" + std::string(400, '9') + "]", "not JSON: number overflow");
  expect_refused("\"\xff\"", "not JSON: line 1");
  expect_refused("{} x", "not JSON: line 1, column 4");
  expect_refused("NaN", "not JSON");
  expect_refused(std::string("{}\0 [", 5), "not JSON: found a NUL byte at offset 2");
}

TEST(Json, SoManyValuesThatMemoryEndsAreRefused) {
  std::string text = "[";
  for (int i = 0; i < (1 << 23); ++i) text += "0,";
  expect_refused(text + "0]", "more than 8388608 values");
}

TEST(Json, ValuesAreNotConverted) {
  const auto object = parse_json(
      R"({"half": 1.5, "minus": -1, "big": 9223372036854775808, "true": true, "text": "3", "list": [1, 2.0],
          "huge": 1)" +
          std::string(300, '0') + "}",
      "f.json");
  EXPECT_EQ(json_member<int>(object, "minus", "f"), -1);
  EXPECT_EQ(json_member<std::uint64_t>(object, "big", "f"), std::uint64_t{1} << 63);
  EXPECT_EQ(json_member<double>(object, "minus", "f"), -1.0);
  const auto refused = [&](auto type, const char* key, const std::string& found) {
    expect_error([&] { json_member<decltype(type)>(object, key, "f"); }, {"f: ", key, "found " + found, "expected "});
  };
  refused(0, "half", "1.5");
  refused(0U, "minus", "-1");
  refused(std::int64_t{0}, "big", "9223372036854775808");
  refused(std::int64_t{0}, "huge", "1e+300");
  refused(0, "true", "true");
  refused(0, "text", "\"3\"");
  refused(0.0, "text", "\"3\"");
  refused(std::string(), "half", "1.5");
  refused(false, "minus", "-1");
  refused(std::vector<int>(), "minus", "-1");
  expect_error([&] { json_member<std::vector<int>>(object, "list", "f"); }, {"f: list[1]: found 2.0"});
  expect_error([&] { json_member<int>(object, "none", "f"); }, {"f: none: found nothing"});
  expect_error([&] { json_member<int>(object.at("list"), "x", "f"); }, {"f: found [1,2.0], expected a JSON object"});
}

TEST(Json, ExcerptsAreShortWhateverTheValueHolds) {
  EXPECT_EQ(excerpt(nlohmann::json("\xff")), "\"\xEF\xBF\xBD\"");
  EXPECT_EQ(excerpt(nlohmann::json(std::string(1000, 'x'))).size(), 63U);
}

TEST(Json, FilesAreNamed) {
  const TempDir dir;
  std::ofstream(dir / "x.json") << "[1";
  expect_error([&] { read_json(dir / "x.json"); }, {(dir / "x.json").string() + ": not JSON: line 1, column 3"});
  expect_error([&] { read_json(dir / "none.json"); }, {"none.json"});
}

}  // namespace
}  // namespace routescope::data
