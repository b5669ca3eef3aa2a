// Numbers of options and keys are decimal, finite and in range, or refused with one line.
#include "data/base/number.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "data/base/command_line.h"
#include "tests/data/base/expect_error.h"

namespace routescope::data {
namespace {

TEST(NumberTest, ReadsDecimals) {
  EXPECT_EQ(parse_number<std::int64_t>("010", "--seed"), 10);
  EXPECT_EQ(parse_number<std::int64_t>("-9223372036854775808", "--seed"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(parse_number<std::uint64_t>("18446744073709551615", "--seed"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(parse_number<double>("1e-3", "--margin"), 1e-3);
  EXPECT_EQ(parse_number<double>("-0.5", "--margin"), -0.5);
  EXPECT_EQ(parse_number<int>("3", "--n", 3, 3), 3);
}

TEST(NumberTest, RefusesEverythingElse) {
  const std::vector<std::string> never{"",     " 5",  "5 ",       "+5",    "0x10", "nan",   "inf",  "-inf", "infinity",
                                       "five", "1_0", "1,000",    "--5",   "0b1",  "5\n",   "1e",   ".",    "-",
                                       "٣",    "5a",  "1e999999", "0x1p3", "5L",   "1.0f0", "5\x1b"};
  for (const std::string& text : never) {
    expect_error([&] { parse_number<std::int64_t>(text, "--seed"); }, {"--seed: found ", "expected a whole number"});
    expect_error([&] { parse_number<double>(text, "key.path"); }, {"key.path: found ", "expected a number"});
  }
  for (const std::string text :
       {"1e3", "1.0", "12345678901234567890123", "9223372036854775808", "-9223372036854775809"})
    expect_error([&] { parse_number<std::int64_t>(text, "--seed"); },
                 {"--seed: found " + text, "from -9223372036854775808 to"});
  for (const std::string text : {"-1", "-0.0", "18446744073709551616"})
    expect_error([&] { parse_number<std::uint64_t>(text, "--seed"); }, {"--seed: found " + text, "from 0 to"});
  for (const std::string text : {"1e-400", "1e400", "-1e400"})
    expect_error([&] { parse_number<double>(text, "--margin"); }, {"--margin: found " + text, "finite"});
  for (const std::string text : {"0", "-0.0", "-1"})
    expect_error([&] { parse_number<double>(text, "--margin", above_zero); }, {"expected a number above 0"});
  expect_error([&] { parse_number<double>("2", "--share", above_zero, 1); }, {"above 0, at most 1"});
  expect_error([&] { parse_number<int>("0", "--n", 1); }, {"--n: found 0, expected a whole number of at least 1"});
  expect_error([&] { parse_number<int>("11", "--n", 1, 10); }, {"expected a whole number from 1 to 10"});
  const std::string message = error_of([&] { parse_number<int>(std::string(300, '9'), "--n"); });
  EXPECT_LT(message.size(), 200u);
}

// The exit status 2 of a tool's usage.
TEST(NumberTest, OptionsAreNumbersOfThisKind) {
  const auto parsed = [](std::vector<const char*> arguments) {
    CLI::App app("", "tool");
    std::uint64_t seed = 1;
    std::optional<double> margin;
    add_number(app, "-s,--seed", seed, "Seed");
    add_number(app, "--margin", margin, "Margin", above_zero);
    arguments.insert(arguments.begin(), "tool");
    parse_command_line(app, static_cast<int>(arguments.size()), arguments.data());
    return std::pair(seed, margin);
  };
  EXPECT_EQ(parsed({}).first, 1u);
  EXPECT_FALSE(parsed({}).second);
  EXPECT_EQ(parsed({"--seed", "010"}).first, 10u);
  EXPECT_EQ(parsed({"--seed=7", "--margin", "0.5"}).second, 0.5);
  for (const char* wrong : {"-1", "1e3", "0x10", " 5", "nan", ""}) {
    EXPECT_THROW(parsed({"--seed", wrong}), UsageError) << wrong;
    EXPECT_THROW(parsed({(std::string("--seed=") + wrong).c_str()}), UsageError) << wrong;
  }
  EXPECT_THROW(parsed({"--margin", "inf"}), UsageError);
  EXPECT_THROW(parsed({"--margin", "0"}), UsageError);
}

TEST(NumberTest, OptionsAreNotPathsThatNoShellExpanded) {
  for (const char* value : {"--out=~/x", "--out=~"}) {
    CLI::App app("", "tool");
    CLI::App* command = app.add_subcommand("command");
    std::string out;
    command->add_option("--out", out);
    const std::array<const char*, 3> arguments{"tool", "command", value};
    EXPECT_THROW(parse_command_line(app, 3, arguments.data()), UsageError) << value;
  }
}

TEST(NumberTest, OptionsAreNotNumbersOfAnotherKind) {
  CLI::App app("", "tool");
  int number = 0;
  app.add_option("--number", number, "A number of CLI11, which takes 010 for 8");
  const std::array<const char*, 1> arguments{"tool"};
  EXPECT_THROW(parse_command_line(app, 1, arguments.data()), std::invalid_argument);
}

}  // namespace
}  // namespace routescope::data
