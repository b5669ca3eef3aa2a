// Paths expand as in a shell, or are refused; two names of one file are seen to be one.
#include "data/base/paths.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "data/base/files.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

TEST(PathsTest, HomeAndVariablesExpand) {
  const TempDir dir;
  ::setenv("HOME", "/home/of user", 1);
  ::setenv("ROUTESCOPE_PLACE", "/scratch/$5", 1);
  ::unsetenv("ROUTESCOPE_UNSET");
  ::setenv("ROUTESCOPE_EMPTY", "", 1);
  EXPECT_EQ(expand_path("runs/x", "run.dir"), "runs/x");
  EXPECT_EQ(expand_path("", "run.dir"), "");
  EXPECT_EQ(expand_path("~", "run.dir"), "/home/of user");
  EXPECT_EQ(expand_path("~/x", "run.dir"), "/home/of user/x");
  EXPECT_EQ(expand_path("./~/x", "run.dir"), "./~/x");
  EXPECT_EQ(expand_path("a~", "run.dir"), "a~");
  EXPECT_EQ(expand_path("$ROUTESCOPE_PLACE/x", "run.dir"), "/scratch/$5/x");
  EXPECT_EQ(expand_path("/a/${ROUTESCOPE_PLACE}b", "run.dir"), "/a//scratch/$5b");
  for (const std::string wrong : {"~other/x", "~~", "$ROUTESCOPE_UNSET/x", "${ROUTESCOPE_UNSET}", "$ROUTESCOPE_EMPTY/x",
                                  "a$", "$/x", "$5", "${", "${}", "${ROUTESCOPE_PLACE", "$$"})
    expect_error([&] { expand_path(wrong, "run.dir"); }, {"run.dir: found " + wrong});
  // A file of exactly this name is that file: what was expanded expands to itself.
  const std::string exact = (dir / "$x").string();
  write_text_atomically(exact, "text");
  EXPECT_EQ(expand_path(exact, "run.dir"), exact);
}

TEST(PathsTest, OnlyUtf8WithoutControlCharacters) {
  expect_error([&] { expand_path("runs/\xe9t\xe9", "run.dir"); },
               {"run.dir: found runs/\\xe9t\\xe9, expected UTF-8", "byte 5"});
  expect_error([&] { expand_path("runs/a\nb", "run.dir"); }, {"run.dir: found runs/a\\nb", "control"});
  expect_error([&] { expand_path(std::string("a\0b", 3), "run.dir"); }, {"run.dir: found a\\x00b"});
  EXPECT_EQ(expand_path("runs/été", "run.dir"), "runs/été");
}

TEST(PathsTest, OneFileOfTwoNamesIsOne) {
  const TempDir dir;
  const auto file = dir / "x.bin";
  write_text_atomically(file, "text");
  std::filesystem::create_directory(dir / "sub");
  std::filesystem::create_symlink("x.bin", dir / "link");
  std::filesystem::create_hard_link(file, dir / "hard");
  std::filesystem::create_symlink("sub", dir / "other");
  std::filesystem::create_symlink("sub/new.bin", dir / "dangling");
  const auto same = [&](const std::string& a, const std::string& b) {
    EXPECT_EQ(same_place(dir.path() / a, dir.path() / b), same_place(dir.path() / b, dir.path() / a));
    return same_place(dir.path() / a, dir.path() / b);
  };
  for (const char* other : {"x.bin", "./x.bin", "sub/../x.bin", "sub//..//x.bin", "link", "hard", "other/../x.bin"})
    EXPECT_TRUE(same("x.bin", other)) << other;
  for (const char* other : {"sub/./new.bin", "other/new.bin", "dangling", "absent/../sub/new.bin"})
    EXPECT_TRUE(same("sub/new.bin", other)) << other;
  EXPECT_TRUE(same("absent/y", "absent/../absent/y"));
  for (const char* other : {"y.bin", "sub", "sub/x.bin", "dangling"}) EXPECT_FALSE(same("x.bin", other)) << other;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  EXPECT_TRUE(same_place("new.bin", "./new.bin") && same_place("new.bin", dir / "new.bin"));
  std::filesystem::current_path(before);
}

TEST(PathsTest, FindsWhatIsNamedTwice) {
  const TempDir dir;
  write_text_atomically(dir / "a", "text");
  write_text_atomically(dir / "b", "text");
  std::filesystem::create_symlink("a", dir / "link");
  std::filesystem::create_hard_link(dir / "b", dir / "hard");
  EXPECT_FALSE(named_twice({}));
  EXPECT_FALSE(named_twice({dir / "a", dir / "b", dir / "absent", dir / "absent"}));
  EXPECT_EQ(named_twice({dir / "b", dir / "a", dir / "link"})->before, dir / "a");
  EXPECT_EQ(named_twice({dir / "a", dir / "b", dir / "hard"})->again, dir / "hard");
  EXPECT_TRUE(named_twice({dir.path(), dir / ""}));
}

TEST(PathsTest, OutputsAreApartFromAllElse) {
  require_apart({{"--output", "a"}, {"--valid-output", ""}, {"--text", ""}}, {{"--input", "b"}, {"--input", ""}});
  expect_error(
      [&] {
        require_apart({{"--output", "a"}, {"--valid-output", "./a"}}, {});
      },
      {"--valid-output ./a: found the same file as --output a"});
  expect_error(
      [&] {
        require_apart({{"--output", "a"}, {"--valid-output", "b"}}, {{"--input", "c/../b"}});
      },
      {"--valid-output b", "--input c/../b"});
  EXPECT_THROW(require_apart({{"--output", "a"}}, {{"--input", "a"}}), UsageError);
}

}  // namespace
}  // namespace routescope::data
