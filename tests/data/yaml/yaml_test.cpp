// YAML from outside: one document, and nothing in it that a reader could trip over.
#include "data/yaml/yaml.h"

#include <gtest/gtest.h>

#include "tests/data/base/expect_error.h"

namespace routescope::data {
namespace {

void expect_refused(const std::string& text, const std::string& why) {
  expect_error([&] { parse_yaml(text, "f.yaml"); }, {why});
  EXPECT_LT(error_of([&] { parse_yaml(text, "f.yaml"); }).size(), 300U);
}

TEST(Yaml, OneDocument) {
  EXPECT_EQ(parse_yaml("--- # first\na: {b: [1, 2]}\n...\n", "f.yaml")["a"]["b"][1].as<int>(), 2);
  EXPECT_TRUE(parse_yaml("", "f.yaml").IsNull());
  EXPECT_TRUE(parse_yaml("# nothing\n", "f.yaml").IsNull());
  expect_refused("a: 1\n---\nb: 2\n", "f.yaml:2: found a second document, expected one");
  expect_refused("a: 1\n...\nb: 2\n", "a second document");
  expect_refused("a: 1\n---\n", "a second document");
  expect_refused("{a: 1}\n]", "f.yaml:2");
}

TEST(Yaml, AliasesAreBounded) {
  const YAML::Node shared = parse_yaml("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n", "f.yaml");
  EXPECT_EQ(shared["d"][1]["b"].as<int>(), 1);
  expect_refused("run: &a {dir: x, again: *a}\n", "f.yaml:1: run.again: found an alias that contains itself");
  expect_refused("a: &a [1, [*a]]\n", "an alias that contains itself");
  expect_refused("&a : *a\n", "f.yaml:1");
  expect_refused("x: *none\n", "f.yaml:1: not YAML");
  std::string bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 40; ++i) {
    const std::string one = "*a" + std::to_string(i - 1);
    bomb += fmt::format("a{}: &a{} [{}, {}, {}]\n", i, i, one, one, one);
  }
  expect_refused(bomb, "f.yaml:9: a8: found more than 100000 values, aliases expanded");
  std::string chain = "a0: &a0 [1]\n";  // each one level deeper than the one before
  for (int i = 1; i < 5000; ++i) chain += fmt::format("a{}: &a{} [*a{}]\n", i, i, i - 1);
  expect_refused(chain, "found more than 100000 values");
}

TEST(Yaml, KeysAreTextsAndStandOnce) {
  expect_refused("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4: b.c: found a second time, expected once (first on line 3)");
  expect_refused("{a: 1, \"a\": 2}", "a: found a second time");
  expect_refused("? [a]\n: 1\n", "a key that is no text");
  expect_refused(std::string(1001, 'k') + ": 1\n", "found a key of 1001 bytes, expected fewer");
  expect_refused("~: 1\n", "a key that is no text");
  expect_refused("a: &k x\n*k : 1\n", "a key that is no text");
  expect_refused("a: &a {b: 1}\nc:\n  <<: *a\n", "f.yaml:3: c: found a merge key");
}

TEST(Yaml, TagsControlCharactersAndDepth) {
  EXPECT_EQ(parse_yaml("a: \"1\"\nb: 'x'\nc: |\n  text\n", "f.yaml").size(), 3U);
  expect_refused("a: !!int \"3\"\n", "f.yaml:1: a: found the tag tag:yaml.org,2002:int, expected a value without one");
  expect_refused("a: !mine {b: 1}\n", "found the tag !mine");
  expect_refused(std::string("a: 1\nb: 2\x04\nc: 3\n"), "f.yaml:2: not YAML: found the control character \\x04");
  expect_refused(std::string("a: \0b", 5), "the control character \\x00");
  expect_refused("a: " + std::string(65, '[') + std::string(65, ']'), "found more than 64 levels");
  expect_refused("a: " + std::string(80'000, '['), "f.yaml:1");
  expect_refused("a: " + std::string(80'000, '{'), "f.yaml:1");
  expect_refused(std::string(5000, '-') + ": [", "f.yaml:");
  expect_refused("a: [1, 2\n", "f.yaml:2: not YAML: ");
  expect_refused("\t a: 1\nb:\n\t- c: }", "f.yaml:");
}

TEST(Yaml, IntegersAtAPath) {
  const YAML::Node root = parse_yaml("run: {seed: 010, dir: x, hex: 0x10, half: 1.5}\nlist: [1]\n", "f.yaml");
  EXPECT_EQ(yaml_integer(root, "run.seed", "f.yaml"), 10);  // decimal, as in a configuration
  for (const char* path : {"run.none", "none.seed", "run.seed.more", "list.0"})
    EXPECT_EQ(yaml_integer(root, path, "f.yaml"), std::nullopt) << path;
  for (const char* path : {"run.dir", "run.hex", "run.half", "run", "list"})
    expect_error([&] { yaml_integer(root, path, "f.yaml"); }, {"f.yaml: key ", path, "expected an integer"});
  EXPECT_EQ(yaml_integer(parse_yaml("", "f"), "run.seed", "f"), std::nullopt);
}

}  // namespace
}  // namespace routescope::data
