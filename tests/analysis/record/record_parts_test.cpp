// Several programs fill one analysis.h5 at a time: every row is kept, whatever the order and whoever is killed.
#include "analysis/record/record_parts.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <thread>

#include "analysis/record/record.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

ProbeRow row_of(const ProbeIdentity& identity, std::int64_t step, std::size_t checks = 0) {
  return testing::RandomRow(identity, static_cast<std::uint64_t>(100 + step)).row(step, checks);
}

/// Little to compute: two sets, of which there are no findings.
ProbeIdentity small_identity() {
  ProbeIdentity identity = testing::full_identity();
  identity.settings.ablations = {Ablation::mask};
  identity.settings.controls = 0;
  identity.settings.by_repeat = false;
  identity.patch = {};
  identity.classes.clear();
  identity.settings.sets = identity.sets = {"3.attn:embedding", "all"};
  return identity;
}

std::vector<std::int64_t> steps_of(const fs::path& file) {
  std::vector<std::int64_t> out;
  for (const ProbeRow& row : load_record(file).rows) out.push_back(row.step);
  return out;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(directory)) out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

/// A process of its own that runs `body`.
template <class Body>
pid_t start(const Body& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  int status = 0;
  try {
    body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 1;
  }
  ::_exit(status);
}

int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(RecordPartsTest, ProcessesThatAddRowsAtATimeLoseNone) {
  const data::TempDir dir;
  const fs::path file = dir / "analysis.h5";
  const ProbeIdentity identity = small_identity();
  constexpr std::int64_t processes = 8, rows = 3;
  std::vector<pid_t> children;
  for (std::int64_t p = 0; p < processes; ++p) {
    children.push_back(start([&] {
      for (std::int64_t r = 0; r < rows; ++r) add_row(file, identity, row_of(identity, r * processes + p), "");
    }));
  }
  for (pid_t child : children) EXPECT_EQ(status_of(child), 0);
  std::vector<std::int64_t> expected;
  for (std::int64_t step = 0; step < processes * rows; ++step) expected.push_back(step);
  EXPECT_EQ(steps_of(file), expected);
  for (const ProbeRow& row : load_record(file).rows)
    EXPECT_EQ(row.intact_nll, row_of(identity, row.step).intact_nll) << row.step;
  join_parts(file);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"analysis.h5"});
  EXPECT_EQ(steps_of(file), expected);
}

TEST(RecordPartsTest, AKillAtAnyMomentLosesNoRowThatWasAdded) {
  const data::TempDir dir;
  const fs::path file = dir / "analysis.h5", done = dir / "done";
  const ProbeIdentity identity = small_identity();
  fs::create_directory(done);
  std::mt19937 random(7);
  constexpr std::int64_t rounds = 6, processes = 6;
  for (std::int64_t round = 0; round < rounds; ++round) {
    const auto before = names_in(done).size();
    std::vector<pid_t> children;
    for (std::int64_t p = 0; p < processes; ++p) {
      children.push_back(start([&] {
        for (std::int64_t r = 0; r < 20; ++r) {
          const std::int64_t step = (round * processes + p) * 20 + r;
          add_row(file, identity, row_of(identity, step), "");
          data::write_text_atomically(done / std::to_string(step), "");
        }
      }));
    }
    // On a crowded machine, too, every round kills processes that are adding rows.
    while (names_in(done).size() == before) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (pid_t child : children) {
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 60));
      ::kill(child, SIGKILL);
      status_of(child);
    }
    // A reader finds every row that add_row() returned from, without writing.
    const std::vector<std::int64_t> found = steps_of(file);
    for (const auto& entry : fs::directory_iterator(done)) {
      if (!entry.is_regular_file()) continue;
      const std::int64_t step = std::stoll(entry.path().filename().string());
      EXPECT_TRUE(std::binary_search(found.begin(), found.end(), step)) << "round " << round << ", step " << step;
    }
  }
  add_row(file, identity, row_of(identity, 100000), "");
  for (const std::string& name : names_in(dir.path())) EXPECT_TRUE(name == "analysis.h5" || name == "done") << name;
}

/// Parts that were written and never joined.
void leave_parts(const fs::path& from, const fs::path& to) {
  for (const auto& entry : fs::directory_iterator(from))
    if (entry.path().extension() == ".part") fs::copy_file(entry.path(), to / entry.path().filename());
}

/// A part of a record that another program holds open.
fs::path make_part(const fs::path& dir, const ProbeIdentity& identity, const ProbeRow& row,
                   const std::string& replaces = "") {
  const data::Unfinished other(dir / "other");  // so that nobody removes the part
  const fs::path scratch = dir / fmt::format("scratch-{}", row.step);
  fs::create_directory(scratch);
  const data::Unfinished also(scratch / "other");
  add_row(scratch / "analysis.h5", identity, row, replaces);
  leave_parts(scratch, dir);
  fs::remove_all(scratch);
  return dir / "analysis.h5";
}

TEST(RecordPartsTest, TheBytesDoNotDependOnTheOrder) {
  const data::TempDir dir;
  const ProbeIdentity identity = small_identity();
  fs::create_directory(dir / "parts");
  for (std::int64_t step : {0, 1, 2, 3}) make_part(dir / "parts", identity, row_of(identity, step, 3));
  const auto parts = names_in(dir / "parts");
  ASSERT_EQ(parts.size(), 4U);
  std::string expected;
  std::vector<std::size_t> order{0, 1, 2, 3};
  for (int attempt = 0; std::next_permutation(order.begin(), order.end()) && attempt < 3; ++attempt) {
    const fs::path place = dir / fmt::format("order-{}", attempt);
    fs::create_directory(place);
    for (std::size_t i : order) {
      fs::copy_file(dir / "parts" / parts[i], place / parts[i]);
      join_parts(place / "analysis.h5");
    }
    EXPECT_EQ(names_in(place), std::vector<std::string>{"analysis.h5"});
    const std::string bytes = data::read_text(place / "analysis.h5");
    if (expected.empty()) expected = bytes;
    EXPECT_TRUE(bytes == expected) << "attempt " << attempt;
  }
}

TEST(RecordPartsTest, ReadersSeePartsAndWriteNothing) {
  const data::TempDir dir;
  const ProbeIdentity identity = small_identity();
  const fs::path file = make_part(dir.path(), identity, row_of(identity, 2));
  const auto before = names_in(dir.path());
  EXPECT_TRUE(record_exists(file));
  EXPECT_EQ(steps_of(file), (std::vector<std::int64_t>{2}));
  EXPECT_EQ(names_in(dir.path()), before);
  add_row(file, identity, row_of(identity, 1), "");
  EXPECT_EQ(steps_of(file), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"analysis.h5"});
}

TEST(RecordPartsTest, OneStepTwiceIsOneRow) {
  const data::TempDir dir;
  const fs::path file = dir / "analysis.h5";
  const ProbeIdentity identity = small_identity();
  ProbeRow slow = row_of(identity, 3), quick = slow, mapped = row_of(identity, 3, 2);
  slow.cost.seconds = 5;
  quick.cost.seconds = 4;
  mapped.cost.seconds = 6;
  for (const ProbeRow* row : {&slow, &quick, &slow}) add_row(file, identity, *row, "");
  ASSERT_EQ(load_record(file).rows.size(), 1U);
  EXPECT_EQ(load_record(file).rows[0].cost.seconds, 4);
  add_row(file, identity, mapped, "");
  add_row(file, identity, quick, "");
  EXPECT_EQ(load_record(file).rows.at(0).atlas.checked.size(), 2U) << "an atlas is not lost";

  // Other weights count where they say which ones they replace.
  ProbeRow again = row_of(identity, 3);
  again.model_sha256 = "other weights";
  add_row(file, identity, again, "weights that nobody has");
  EXPECT_EQ(load_record(file).rows.at(0).model_sha256, mapped.model_sha256);
  add_row(file, identity, again, mapped.model_sha256);
  EXPECT_EQ(load_record(file).rows.at(0).model_sha256, "other weights");
}

TEST(RecordPartsTest, WritersThatEitherRowOfAStepHasAreKeptInAnyOrder) {
  const data::TempDir dir;
  const ProbeIdentity identity = small_identity();
  ProbeRow mapped = row_of(identity, 3, 2), with = row_of(identity, 3), quicker = with;
  ASSERT_TRUE(mapped.writers.empty());
  with.writers.seconds = 5;
  quicker.writers.seconds = 4;
  std::vector<const ProbeRow*> rows{&mapped, &with, &quicker};
  std::sort(rows.begin(), rows.end());
  int attempt = 0;
  do {
    const fs::path file = dir / fmt::format("{}.h5", attempt++);
    for (const ProbeRow* row : rows) add_row(file, identity, *row, "");
    const ProbeRow row = load_record(file).rows.at(0);
    EXPECT_EQ(row.atlas.checked.size(), 2U);
    EXPECT_EQ(row.writers.seconds, 4);
    EXPECT_EQ(row.intact_nll, mapped.intact_nll);
  } while (std::next_permutation(rows.begin(), rows.end()));
  EXPECT_EQ(attempt, 6);
}

TEST(RecordPartsTest, ARowThatWasMeasuredOtherwiseIsKeptElsewhere) {
  const data::TempDir dir;
  const fs::path file = dir / "analysis.h5";
  const ProbeIdentity identity = small_identity();
  ProbeIdentity other = identity;
  other.settings.margin = 0.5;
  add_row(file, identity, row_of(identity, 1), "");
  data::expect_error([&] { add_row(file, other, row_of(other, 2), ""); },
                     {"analysis.h5: attribute settings: margin: found 0.01, expected 0.5", "the row of step 2 is in "});
  EXPECT_EQ(steps_of(file), (std::vector<std::int64_t>{1}));
  const auto names = names_in(dir.path());
  ASSERT_EQ(names.size(), 2U);
  EXPECT_EQ(steps_of(dir / names[0] == file ? dir / names[1] : dir / names[0]), (std::vector<std::int64_t>{2}));
}

TEST(RecordPartsTest, ALinkStays) {
  const data::TempDir dir;
  const ProbeIdentity identity = small_identity();
  fs::create_directory(dir / "far");
  fs::create_symlink("far/real.h5", dir / "analysis.h5");
  add_row(dir / "analysis.h5", identity, row_of(identity, 1), "");
  add_row(dir / "far/real.h5", identity, row_of(identity, 2), "");
  EXPECT_TRUE(fs::is_symlink(dir / "analysis.h5"));
  EXPECT_EQ(steps_of(dir / "analysis.h5"), (std::vector<std::int64_t>{1, 2}));
}

}  // namespace
}  // namespace routescope::analysis
