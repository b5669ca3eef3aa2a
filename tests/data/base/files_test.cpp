// Files are complete or absent; checksums are those of sha256sum.
#include "data/base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

class FilesTest : public ::testing::Test {
 protected:
  std::size_t entries() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) count += entry.exists() ? 1 : 0;
    return count;
  }
  TempDir dir_;
};

TEST_F(FilesTest, WritesAndReplaces) {
  const auto file = dir_ / "x.txt";
  write_text_atomically(file, "one\n");
  write_text_atomically(file, "two\n");
  EXPECT_EQ(read_text(file), "two\n");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FilesTest, FailureLeavesTheOldFileAndNothingElse) {
  const auto file = dir_ / "x.txt";
  write_text_atomically(file, "old");
  const auto half_way = [](const std::filesystem::path& partial) {
    std::ofstream(partial) << "half of";
    throw Error("gave up");
  };
  expect_error([&] { write_atomically(file, half_way); }, {"gave up"});
  EXPECT_EQ(read_text(file), "old");
  EXPECT_EQ(entries(), 1u);
  expect_error([&] { write_text_atomically(dir_ / "absent" / "x", "text"); }, {"absent/x:", "No such file"});
  const std::string message = on_full_disk(1000, [&]() -> std::string {
    write_text_atomically(file, std::string(5000, 'x'));
    return "written";
  });
  EXPECT_EQ(message, file.string() + ": cannot write: File too large");
  EXPECT_EQ(read_text(file), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FilesTest, WritesIntoTheCurrentDirectory) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir_.path());
  write_text_atomically("bare-name", "text");
  std::filesystem::current_path(before);
  EXPECT_EQ(read_text(dir_ / "bare-name"), "text");
}

TEST_F(FilesTest, MessagesNameTheTarget) {
  for (const std::filesystem::path& target : {dir_ / "b.h5", std::filesystem::path("b.h5")}) {
    const Unfinished unfinished(target);
    EXPECT_NE(unfinished.path(), target);
    EXPECT_EQ(final_name(unfinished.path()), target);
  }
  EXPECT_EQ(final_name("a/b.partial"), "a/b.partial");
}

// Whatever is there and is no regular file: no reader waits for it, or reads it without end, and no writer replaces it.
TEST_F(FilesTest, OtherThanRegularFilesAreRefused) {
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  std::filesystem::create_directory(dir_ / "directory");
  std::filesystem::create_symlink("fifo", dir_ / "link");
  sockaddr_un address{AF_UNIX, {}};
  const FileDescriptor listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  (dir_ / "socket").string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::vector<std::pair<std::filesystem::path, std::string>> cases{
      {dir_ / "fifo", "a FIFO"},     {dir_ / "directory", "a directory"}, {dir_ / "link", "a FIFO"},
      {dir_ / "socket", "a socket"}, {"/dev/zero", "a device"},           {"/dev/null", "a device"}};
  for (const auto& [path, kind] : cases) {
    const std::filesystem::path& file = path;  // a lambda of Clang 14 captures no structured binding
    const std::vector<std::string> parts{file.string() + ": found " + kind, "expected a regular file"};
    expect_error([&] { read_text(file); }, parts);
    expect_error([&] { sha256_file(file); }, parts);
    if (file.string().starts_with("/dev")) continue;  // a mistake would destroy it
    expect_error([&] { write_text_atomically(file, "text"); }, {"found " + kind, "expected a regular file to replace"});
    EXPECT_FALSE(std::filesystem::is_regular_file(file));
  }
  expect_error([&] { require_replaceable("/dev/null"); }, {"/dev/null: found a device"});
  EXPECT_EQ(entries(), 4u);
}

TEST_F(FilesTest, LinksStayAndTheirFilesAreWritten) {
  std::filesystem::create_directory(dir_ / "real");
  write_text_atomically(dir_ / "real" / "x", "old");
  std::filesystem::create_symlink("real/x", dir_ / "one");
  std::filesystem::create_symlink(dir_ / "one", dir_ / "two");
  std::filesystem::create_symlink("real/new", dir_ / "dangling");
  write_text_atomically(dir_ / "two", "new");
  write_text_atomically(dir_ / "dangling", "made");
  EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "one") && std::filesystem::is_symlink(dir_ / "two"));
  EXPECT_EQ(read_text(dir_ / "real" / "x"), "new");
  EXPECT_EQ(read_text(dir_ / "real" / "new"), "made");
  std::filesystem::create_symlink("circle", dir_ / "circle");
  expect_error([&] { write_text_atomically(dir_ / "circle", "text"); }, {"circle", "links"});
}

TEST_F(FilesTest, TheReplacedFilesPermissionsStay) {
  const auto file = dir_ / "private";
  write_text_atomically(file, "old");
  ::chmod(file.c_str(), 0600);
  write_text_atomically(file, "new");
  EXPECT_EQ(std::filesystem::status(file).permissions(), std::filesystem::perms(0600));
}

TEST_F(FilesTest, TheLastOfTwoWritersOfOneFileWins) {
  const auto file = dir_ / "x";
  Unfinished first(file), second(file);
  EXPECT_NE(first.path(), second.path());
  std::ofstream(first.path()) << "first";
  std::ofstream(second.path()) << "second";
  second.publish();
  first.publish();
  EXPECT_EQ(read_text(file), "first");
}

TEST_F(FilesTest, TheFirstOfTwoWritersOfOneDirectoryWins) {
  const auto directory = dir_ / "model";
  write_text_atomically(dir_ / "x", "");
  std::filesystem::create_directory(dir_ / "model.partial");  // a user's own
  const auto two = [&] {
    write_directory_atomically(directory, [&](const std::filesystem::path& loser) {
      write_text_atomically(loser / "config", "loser");
      write_directory_atomically(directory, [&](const std::filesystem::path& winner) {
        write_text_atomically(winner / "config", "winner");
        write_text_atomically(winner / "weights", "winner");
      });
    });
  };
  expect_error(two, {"model: another process made it meanwhile"});
  EXPECT_EQ(read_text(directory / "config"), "winner");
  EXPECT_EQ(read_text(directory / "weights"), "winner");
  expect_error([&] { write_directory_atomically(dir_ / "x", [](const auto&) {}); }, {"x: exists already"});
  EXPECT_EQ(entries(), 3u);
}

TEST_F(FilesTest, NewDirectoriesAreMadeWithTheirParents) {
  write_directory_atomically(dir_ / "a" / "b" / "", [&](const std::filesystem::path& place) {
    EXPECT_EQ(final_name(place), dir_ / "a" / "b");
    write_text_atomically(place / "x", "text");
  });
  EXPECT_EQ(read_text(dir_ / "a" / "b" / "x"), "text");
}

// What killed writers leave is removed by the next writer there; what a living one is writing stays.
TEST_F(FilesTest, WhatKilledProcessesLeftIsRemoved) {
  const pid_t child = ::fork();
  if (child == 0) {
    write_atomically(dir_ / "x", [](const std::filesystem::path& partial) {
      std::ofstream(partial) << "half";
      ::raise(SIGKILL);
    });
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(entries(), 1u);
  Unfinished living(dir_ / "y");
  EXPECT_EQ(entries(), 1u);
  write_text_atomically(dir_ / "z", "text");
  std::ofstream(living.path()) << "living";
  living.publish();
  EXPECT_EQ(read_text(dir_ / "y"), "living");
}

// Nothing that lies there under a guessed name is written to or removed.
TEST_F(FilesTest, PlantedLinksAreNotFollowed) {
  write_text_atomically(dir_ / "victim", "precious");
  for (const char* name : {"x.partial", ".routescope-partial-abcdef", ".routescope-partial-ABCDEF"})
    std::filesystem::create_symlink(dir_.path(), dir_ / name);
  write_text_atomically(dir_ / "x", "text");
  EXPECT_EQ(read_text(dir_ / "victim"), "precious");
  EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "x.partial"));
}

// Many writers of one file and of one directory at a time: each file is one writer's, whole, and nothing else stays.
TEST_F(FilesTest, ManyWritersAtATime) {
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([this, i] {
      for (int round = 0; round < 20; ++round)
        write_text_atomically(dir_ / "x", std::string(10000, static_cast<char>('a' + i)));
    });
  }
  for (std::thread& writer : writers) writer.join();
  const std::string text = read_text(dir_ / "x");
  EXPECT_EQ(text, std::string(10000, text.at(0)));
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FilesTest, TextsHaveALimit) {
  write_text_atomically(dir_ / "x", std::string(1000, 'x'));
  EXPECT_EQ(read_text(dir_ / "x", 1000).size(), 1000u);
  expect_error([&] { read_text(dir_ / "x", 999); }, {"x: found more than 999 bytes"});
}

// The examples of FIPS 180-2, and a file of several pieces.
TEST_F(FilesTest, Sha256IsThatOfTheStandard) {
  const auto digest = [&](const std::string& text) {
    write_text_atomically(dir_ / "x", text);
    return sha256_file(dir_ / "x");
  };
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  expect_error([&] { sha256_file(dir_ / "absent"); }, {"absent", "No such file"});
}

}  // namespace
}  // namespace routescope::data
