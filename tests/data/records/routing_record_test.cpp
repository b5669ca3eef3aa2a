// routing.h5: what is written is read back, at any moment, whatever happens to the writer.
#include "data/records/routing_record.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <limits>
#include <random>
#include <thread>

#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/journal/journal.h"
#include "data/records/routing_view.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_check.h"
#include "tests/data/records/routing_fixture.h"

namespace routescope::data {
namespace {

class RoutingRecordTest : public ::testing::Test {
 protected:
  void remove_record() const {
    std::filesystem::remove(file_);
    std::filesystem::remove(journal_name(file_));
  }

  TempDir dir_;
  std::filesystem::path file_ = dir_ / "routing.h5";
  RoutingRecordInfo info_ = small_info();
};

TEST_F(RoutingRecordTest, ReadsBackWhatWasWritten) {
  {
    RoutingRecord record = RoutingRecord::create(file_, info_);
    for (std::int64_t step = 1; step <= 9; ++step) {
      record_step(record, step, info_);
      EXPECT_EQ(check(file_, info_, step), "") << "in the writing process, after step " << step;
    }
  }
  EXPECT_EQ(check(file_, info_, 9), "");
  std::filesystem::remove(journal_name(file_));
  EXPECT_EQ(check(file_, info_, 9), "") << "and without its journal";
}

TEST_F(RoutingRecordTest, WorksForModelWithoutReads) {
  const RoutingRecordInfo standard = small_info(0);
  {
    RoutingRecord record = RoutingRecord::create(file_, standard);
    for (std::int64_t step = 1; step <= 5; ++step) record_step(record, step, standard);
  }
  EXPECT_EQ(check(file_, standard, 5), "");
  { RoutingRecord record = RoutingRecord::resume(file_, standard, 4); }
  EXPECT_EQ(check(file_, standard, 4), "");
  EXPECT_EQ(hdf5::File::open(file_).dataset("/alpha_mean").shape(), (hdf5::Shape{2, 0, 0}));
}

TEST_F(RoutingRecordTest, RefusesToOverwriteAndToMixModels) {
  { RoutingRecord record = RoutingRecord::create(file_, info_); }
  EXPECT_THROW(RoutingRecord::create(file_, info_), Error);
  RoutingRecordInfo other = info_;
  other.probe_tokens[3] = 9;
  expect_error([&] { RoutingRecord::resume(file_, other, 3); }, {file_.string(), "/probe_tokens"});
  expect_error([&] { RoutingRecord::resume(dir_ / "absent.h5", info_, 3); }, {"absent.h5", "no such file"});
  EXPECT_EQ(check(file_, info_, 0), "") << "a refused resume must leave the record alone";
}

TEST_F(RoutingRecordTest, RefusesStepsOutOfOrderAndRowsOfAnotherSize) {
  RoutingRecord record = RoutingRecord::create(file_, info_);
  record_step(record, 4, info_);
  EXPECT_THROW(record.append(train_at(4)), Error);
  EXPECT_THROW(record.append(snapshot_at(3, info_)), Error);
  EXPECT_THROW(record.append_alpha(4, alpha_at(4, info_)), Error);
  EXPECT_THROW(record.append_alpha(8, std::vector<float>(3)), Error);
  RoutingSnapshot wide = snapshot_at(6, info_);
  wide.query.push_back(0);
  EXPECT_THROW(record.append(wide), Error);
}

TEST_F(RoutingRecordTest, ResumesAtAnyEarlierStep) {
  {
    RoutingRecord record = RoutingRecord::create(file_, info_);
    for (std::int64_t step = 1; step <= 12; ++step) record_step(record, step, info_);
  }
  for (const std::int64_t step : {12, 11, 8, 7, 1, 0}) {
    { RoutingRecord record = RoutingRecord::resume(file_, info_, step); }
    ASSERT_EQ(check(file_, info_, step), "") << "resumed at step " << step;
  }
}

TEST_F(RoutingRecordTest, SurvivesBeingKilledAtAnyMoment) {
  constexpr std::uint64_t seed = 20260613;
  std::mt19937_64 random(seed);
  for (int repetition = 0; repetition < 50; ++repetition) {
    remove_record();
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      RoutingRecord record = RoutingRecord::create(file_, info_);
      for (std::int64_t step = 1;; ++step) {
        record_step(record, step, info_);
        if (::write(pipe[1], &step, sizeof step) != sizeof step) ::_exit(1);  // what must survive
      }
    }
    ::close(pipe[1]);
    // While it is created, in the first repetitions; then some way into a later step.
    const bool early = repetition < 10;
    const std::int64_t met = early ? 0 : static_cast<std::int64_t>(random() % 40);
    const auto pause = std::chrono::microseconds(random() % (early ? 8000 : 3000));
    std::int64_t done = 0, step = 0;
    while (done < met && ::read(pipe[0], &step, sizeof step) == sizeof step) done = step;
    std::this_thread::sleep_for(pause);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself";
    while (::read(pipe[0], &step, sizeof step) == sizeof step) done = step;
    ::close(pipe[0]);

    SCOPED_TRACE(fmt::format("seed {}, repetition {}, killed {} us after step {}, {} steps acknowledged", seed,
                             repetition, pause.count(), met, done));
    if (!std::filesystem::exists(file_)) {
      ASSERT_EQ(done, 0);
      { RoutingRecord record = RoutingRecord::create(file_, info_); }
      ASSERT_EQ(check(file_, info_, 0), "");
    } else {
      ASSERT_EQ(check(file_, info_, -1), "") << "as the killed writer left it";
      ASSERT_GE(static_cast<std::int64_t>(RoutingRecordView::load(file_).train.size()), done);
      // For readers that know nothing of journals.
      const auto salvaged = dir_ / "salvaged.h5";
      salvage(file_, salvaged);
      std::filesystem::remove(journal_name(salvaged));
      ASSERT_EQ(check(salvaged, info_, -1), "");
      ASSERT_GE(static_cast<std::int64_t>(RoutingRecordView::load(salvaged).train.size()), done);
      std::filesystem::remove(salvaged);
      const std::int64_t kept =
          done == 0 ? 0 : static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(done + 1));
      {
        RoutingRecord record = RoutingRecord::resume(file_, info_, kept);
        ASSERT_EQ(check(file_, info_, kept), "") << "resumed at step " << kept;
        for (std::int64_t next = kept + 1; next <= kept + 5; ++next) record_step(record, next, info_);
      }
      ASSERT_EQ(check(file_, info_, kept + 5), "") << "went on from step " << kept;
    }
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) files += entry.exists() ? 1 : 0;
    ASSERT_EQ(files, 2u) << "the record and its journal; debris of the killed writer is gone";
  }
}

TEST_F(RoutingRecordTest, ADiskWithoutRoomForTheRecordIsNamedAsTheReason) {
  // HDF5 goes on after some failed writes, and then fails to read what it could not write.
  for (const rlim_t bytes : {0, 4096, 8192, 16384, 24576}) {
    const std::string message = on_full_disk(bytes, [&]() -> std::string {
      (void)RoutingRecord::create(file_, info_);
      return "created";
    });
    EXPECT_EQ(message.find(file_.string() + ":"), 0u) << bytes << ": " << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << bytes << ": " << message;
    EXPECT_FALSE(std::filesystem::exists(file_)) << bytes;
  }
}

TEST_F(RoutingRecordTest, FullDiskKeepsWhatWasRecorded) {
  const auto size_after = [&](std::int64_t steps) {
    remove_record();
    RoutingRecord record = RoutingRecord::create(file_, info_);
    for (std::int64_t step = 1; step <= steps; ++step) record_step(record, step, info_);
    return static_cast<rlim_t>(std::filesystem::file_size(file_));
  };
  // Room for less than a start, and for a part of 400 steps.
  const rlim_t started = size_after(20), whole_run = size_after(400);
  std::vector<rlim_t> limits;
  for (rlim_t i = 0; i < 8; ++i) limits.push_back(started * i / 8);
  for (rlim_t i = 0; i < 6; ++i) limits.push_back(started + (whole_run - started) * (2 * i + 1) / 12);
  std::int64_t failures_late = 0;
  for (const rlim_t bytes : limits) {
    remove_record();
    const std::string message = on_full_disk(bytes, [&]() -> std::string {
      RoutingRecord record = RoutingRecord::create(file_, info_);
      for (std::int64_t step = 1; step <= 400; ++step) record_step(record, step, info_);
      return "written";
    });
    EXPECT_EQ(message.find(file_.string() + ":"), 0u) << bytes << ": " << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << bytes << ": " << message;
    if (!std::filesystem::exists(file_)) {
      EXPECT_TRUE(std::filesystem::is_empty(dir_.path())) << bytes;
      continue;
    }
    EXPECT_EQ(check(file_, info_, -1), "") << bytes;
    const auto rows = static_cast<std::int64_t>(RoutingRecordView::load(file_).train.size());
    if (rows > 10) ++failures_late;
    const std::int64_t whole = std::max<std::int64_t>(rows - 1, 0);  // the last step may lack its snapshot
    { RoutingRecord record = RoutingRecord::resume(file_, info_, whole); }
    EXPECT_EQ(check(file_, info_, whole), "") << bytes << ", resumed where there is room";
  }
  EXPECT_GT(failures_late, 3) << "the limits were too low to meet a record that had got going";
}

// What a reader process saw: how often it looked, and what was wrong.
struct Watch {
  std::int64_t looks = 0;
  std::int64_t refreshes = 0;
  std::array<char, 200> problem{};
};

// Polls a record until the file STOP appears: opens it by name again and again, and keeps one open and refreshes it.
// `looks` counts them for the writer.
Watch watch(const std::filesystem::path& file, const RoutingRecordInfo& info, const std::filesystem::path& stop,
            std::atomic<std::int64_t>& looks) {
  Watch out;
  const auto report = [&](const std::string& text) { text.copy(out.problem.data(), out.problem.size() - 1); };
  try {
    while (!std::filesystem::exists(file)) std::this_thread::yield();
    const hdf5::File kept = hdf5::File::open(file);
    hdf5::Dataset kept_step = kept.dataset("/train/step"), kept_loss = kept.dataset("/train/loss");
    std::int64_t rows = 0;
    while (!std::filesystem::exists(stop) && out.problem[0] == 0) {
      if (const std::string wrong = check(file, info, -1); !wrong.empty()) report(wrong);
      ++out.looks;
      kept_step.refresh();
      const auto steps = kept_step.read<std::int64_t>();
      kept_loss.refresh();
      const auto count = static_cast<std::int64_t>(steps.size());
      if (count < rows) report(fmt::format("{} rows after {} in a file kept open", count, rows));
      if (count > rows) ++out.refreshes;
      rows = count;
      const auto loss = kept_loss.read_rows<double>(0, rows);
      for (std::size_t i = 0; i < loss.size(); ++i)
        if (loss[i] != train_at(steps[i]).loss) report(fmt::format("loss of step {} in a file kept open", steps[i]));
      ++looks;
    }
  } catch (const std::exception& error) {
    report(error.what());
  }
  looks = std::numeric_limits<std::int64_t>::max() / 2;  // the writer waits for no look of this reader
  return out;
}

TEST_F(RoutingRecordTest, NeverFailsReaders) {
  const auto stop = dir_ / "stop";
  using Looks = std::array<std::atomic<std::int64_t>, 2>;
  void* shared = ::mmap(nullptr, sizeof(Looks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  Looks& looks = *new (shared) Looks{};
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const auto readers = static_cast<int>(looks.size());
  std::fflush(nullptr);
  for (int reader = 0; reader < readers; ++reader)
    if (::fork() == 0) {
      const Watch seen = watch(file_, info_, stop, looks[static_cast<std::size_t>(reader)]);
      const bool sent = ::write(pipe[1], &seen, sizeof seen) == sizeof seen;
      ::_exit(sent ? 0 : 1);
    }
  ::close(pipe[1]);
  // Waits until every reader has looked once from beginning to end: they meet every phase on a crowded machine, too.
  const auto let_readers_look = [&looks] {
    for (std::atomic<std::int64_t>& count : looks) {
      const std::int64_t before = count;
      while (count < before + 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  const auto write_steps = [&](RoutingRecord& record, std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step <= last; ++step) {
      record_step(record, step, info_);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (step % 50 == 0) let_readers_look();
    }
  };
  {
    RoutingRecord record = RoutingRecord::create(file_, info_);
    write_steps(record, 1, 1100);  // past the first chunk of the curves
  }
  for (std::int64_t resumed = 1000; resumed > 600; resumed -= 40) {
    RoutingRecord record = RoutingRecord::resume(file_, info_, resumed);
    write_steps(record, resumed + 1, resumed + 20);
    let_readers_look();
  }
  let_readers_look();  // at the closed file, too
  hdf5::File::create(stop);
  for (int reader = 0; reader < readers; ++reader) {
    Watch seen;
    ASSERT_EQ(::read(pipe[0], &seen, sizeof seen), static_cast<ssize_t>(sizeof seen));
    EXPECT_STREQ(seen.problem.data(), "");
    EXPECT_GT(seen.looks, 20) << "too few to have met every phase";
    EXPECT_GT(seen.refreshes, 5);
    int status = 0;
    ::wait(&status);
  }
  ::close(pipe[0]);
  ::munmap(shared, sizeof(Looks));
}

}  // namespace
}  // namespace routescope::data
