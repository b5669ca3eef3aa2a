// A journal on a full disk, and a journal of an unknown version.
#include "data/journal/journal.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "data/base/files.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

namespace fs = std::filesystem;

class JournalTest : public ::testing::Test {
 protected:
  TempDir dir_;
  fs::path file_ = dir_.path() / "some.h5";
};

TEST_F(JournalTest, AFailedRewriteGivesItsReason) {
  const fs::path place = dir_.path() / "place";
  fs::create_directory(place);
  Journal journal;
  journal.publish(place / "some.h5.journal", {});
  fs::remove_all(place);
  // What is added goes on; a new file cannot be made any more.
  const std::vector<std::byte> bytes(2 << 20);
  int reason = 0;
  for (int i = 0; i < 20 && reason == 0; ++i) reason = journal.write(0, bytes);
  EXPECT_EQ(std::strerror(reason), std::string(std::strerror(ENOENT)));
}

TEST_F(JournalTest, AnotherVersionIsNotRead) {
  Journal journal;
  journal.publish(journal_name(file_), {});
  ASSERT_TRUE(read_journal(file_));
  std::string bytes = read_text(journal_name(file_));
  bytes.at(24) = 2;
  const auto checksum = static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), 28));
  std::memcpy(bytes.data() + 28, &checksum, sizeof checksum);
  std::ofstream(journal_name(file_), std::ios::binary) << bytes;
  EXPECT_FALSE(read_journal(file_));
}

}  // namespace
}  // namespace routescope::data
