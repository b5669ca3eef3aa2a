// routing.h5 cut, with flipped bits, without its journal, with the journal of another file: reading gives the same rows
// or an error. Each case runs in a process of its own, so that a crash of the HDF5 library is one of the answers.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <map>
#include <random>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/journal/journal.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_check.h"

namespace routescope::data {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSteps = 40;
constexpr std::uint64_t kSeed = 20260701;

void write_bytes(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

// The result of `body` in a child process; "signal N" if a signal ended it. After a minute it is killed.
std::string in_child(const std::function<std::string()>& body) {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    std::string text;
    try {
      text = body();
    } catch (const std::exception& error) {
      text = std::string("not an Error of ours: ") + error.what();
    }
    ::_exit(::write(pipe[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(pipe[1]);
  std::string out;
  std::array<char, 4096> piece{};
  for (ssize_t count = 0; (count = ::read(pipe[0], piece.data(), piece.size())) > 0;)
    out.append(piece.data(), static_cast<std::size_t>(count));
  ::close(pipe[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? fmt::format("signal {} after: {}", WTERMSIG(status), out) : out;
}

class RoutingDamageTest : public ::testing::Test {
 protected:
  // The record of a writer that was killed after kSteps steps, in bytes.
  void SetUp() override {
    RoutingRecord record = RoutingRecord::create(file_, info_);
    for (std::int64_t step = 1; step <= kSteps; ++step) record_step(record, step, info_);
    record.flush(true);
    record_bytes_ = read_text(file_);
    journal_bytes_ = read_text(journal_name(file_));
  }

  // Reading: "same", "error", or what is wrong.
  std::string reading() const {
    try {
      const std::string wrong = check(file_, info_, kSteps);
      return wrong.empty() ? "same" : "wrong: " + wrong;
    } catch (const Error& error) {
      const std::string text = error.what();
      return text.find('\n') == std::string::npos && text.starts_with(file_.string()) ? "error" : "wrong: " + text;
    }
  }

  // Resuming at the last step, and where rows are lost, at the step that is said to be intact: "same", "error" or what
  // is wrong.
  std::string resuming(const std::string& damaged) const {
    const auto resume = [this](std::int64_t step) {
      { const RoutingRecord record = RoutingRecord::resume(file_, info_, step); }
      const std::string wrong = check(file_, info_, step);
      return wrong.empty() ? std::string() : fmt::format("wrong after resuming at {}: {}", step, wrong);
    };
    try {
      const std::string wrong = resume(kSteps);
      return wrong.empty() ? "same" : wrong;
    } catch (const RecordDamaged& error) {
      if (read_text(file_) != damaged) return "wrong: the damaged file was changed";
      if (error.intact_step < -1 || error.intact_step >= kSteps) return fmt::format("wrong: {}", error.what());
      if (const std::string wrong = salvaging(); !wrong.empty()) return wrong;
      if (error.intact_step < 0) return "error";
      const std::string wrong = resume(error.intact_step);
      return wrong.empty() ? "error" : wrong;
    } catch (const Error& error) {
      if (read_text(file_) != damaged) return "wrong: the damaged file was changed";
      return "error";
    }
  }

  // "" if what salvage() writes holds rows of ours only, else what is wrong.
  std::string salvaging() const {
    const fs::path output = dir_ / "salvaged.h5";
    salvage(file_, output);
    const RoutingRecordView view = RoutingRecordView::load(output);
    fs::remove(output);
    fs::remove(journal_name(output));
    for (const TrainRow& row : view.train)
      if (!same(row, train_at(row.step))) return fmt::format("wrong: salvaged training row of step {}", row.step);
    for (const RoutingSnapshot& row : view.snapshots)
      if (!same(row, snapshot_at(row.step, info_))) return fmt::format("wrong: salvaged snapshot of step {}", row.step);
    return "";
  }

  // The answers to `count` cases of `damage`, which changes the bytes it is given.
  std::map<std::string, int> answers(int count, bool in_journal, bool with_journal,
                                     const std::function<void(std::string&, std::mt19937_64&)>& damage) const {
    std::mt19937_64 random(kSeed);
    std::map<std::string, int> out;
    for (int i = 0; i < count; ++i) {
      std::string record = record_bytes_, journal = journal_bytes_;
      damage(in_journal ? journal : record, random);
      const bool resumed = i % 4 == 0;
      const std::string answer = in_child([&] {
        write_bytes(file_, record);
        if (with_journal)
          write_bytes(journal_name(file_), journal);
        else
          fs::remove(journal_name(file_));
        const std::string first = reading();
        return resumed && !first.starts_with("wrong") ? first + ", resumed " + resuming(record) : first;
      });
      if (answer.find("wrong") != std::string::npos || answer.find("same") == answer.find("error"))
        ADD_FAILURE() << "seed " << kSeed << ", case " << i << ": " << answer;
      ++out[answer];
    }
    for (const auto& [answer, times] : out) fmt::print("{:>5} {}\n", times, answer);
    return out;
  }

  // Mostly of bytes that say something: half of a small record is room for more.
  static void flip(std::string& bytes, std::mt19937_64& random) {
    std::size_t at = random() % bytes.size();
    for (int look = 0; look < 3 && bytes[at] == 0; ++look) at = random() % bytes.size();
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
  }
  static void cut(std::string& bytes, std::mt19937_64& random) { bytes.resize(random() % bytes.size()); }

  MemoryDir dir_;
  fs::path file_ = dir_ / "routing.h5";
  RoutingRecordInfo info_ = small_info();
  std::string record_bytes_, journal_bytes_;
};

TEST_F(RoutingDamageTest, FlippedBitsAreFoundOrDoNoHarm) {
  answers(300, false, true, flip);
}

TEST_F(RoutingDamageTest, ACutRecordIsReadOrRefused) {
  answers(200, false, true, cut);
}

TEST_F(RoutingDamageTest, DamageWithoutAJournalIsFound) {
  // HDF5 looks for 2 s whether a half-written piece of the file becomes whole.
  answers(24, false, false, flip);
  answers(2, false, false, cut);
}

TEST_F(RoutingDamageTest, DamagedTextsAreFoundBeforeHdf5ReadsThem) {
  const std::size_t heap = record_bytes_.find("GCOL");
  ASSERT_NE(heap, std::string::npos);
  const auto found = answers(200, false, false, [heap](std::string& bytes, std::mt19937_64& random) {
    const std::size_t at = heap + 16 + random() % 1500;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
  });
  EXPECT_GT(found.contains("error") ? found.at("error") : 0, 30);
}

TEST_F(RoutingDamageTest, ADamagedJournalDoesNoHarm) {
  answers(100, true, true, flip);
  answers(50, true, true, cut);
}

}  // namespace
}  // namespace routescope::data
