#include "train/config/lease.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <memory>

#include "data/base/error.h"
#include "kernels/comm/peer.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class LeaseTest : public ::testing::Test {
 protected:
  fs::path dir() const { return directory_ / "leases"; }
  fs::path file(int number = 1) const { return dir() / std::to_string(number); }
  void write(const std::string& text, int number = 1) const {
    fs::create_directories(dir());
    std::ofstream(file(number), std::ios::trunc) << text;
  }
  /// Of a process of another machine.
  static std::string elsewhere(int beats) {
    return R"({"host":"elsewhere","process":7,"started":1,"name_space":2,"token":"abc","given_back":false,"beats":)" +
           std::to_string(beats) + "}\n";
  }
  static std::string error_of(const std::function<void()>& act) {
    try {
      act();
    } catch (const data::Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string refusal(LeaseTimes times = kQuick) const {
    return error_of([&] { const Lease lease(dir(), times); });
  }
  // A thread of a loaded machine may stand still for a part of a second.
  static constexpr LeaseTimes kQuick{milliseconds(50), milliseconds(1'000)};
  static constexpr LeaseTimes kPatient{milliseconds(20), milliseconds(3'600'000)};
  testing::TemporaryDirectory directory_;
};

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(LeaseTest, ASecondHolderIsRefusedByName) {
  {
    const Lease lease(dir(), kQuick);
    const std::string text = refusal();
    EXPECT_TRUE(holds(text, std::string(kernels::this_peer().host.data()) + ", process " + std::to_string(::getpid())))
        << text;
    EXPECT_TRUE(holds(text, "is training in this directory, expected none")) << text;
    EXPECT_NO_THROW(lease.check());
  }
  EXPECT_EQ(refusal(kPatient), "no error") << "it was given back";
  EXPECT_TRUE(fs::exists(file(2)));
}

// It is not waited for: the patience is an hour.
TEST_F(LeaseTest, OfADeadProcessOfThisMachineItIsTakenAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) {
    const Lease left(dir(), kPatient);
    ::_exit(0);  // without its destructor
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(fs::exists(file(1)));
  EXPECT_EQ(refusal(kPatient), "no error");
}

TEST_F(LeaseTest, OfAnotherMachineItIsTakenOnlyWithoutASignOfLife) {
  write(elsewhere(1));
  EXPECT_EQ(refusal(), "no error");
  // The hour does not pass: a heartbeat is seen.
  write(elsewhere(1), 3);
  std::atomic<bool> done = false;
  std::thread heart([&] {
    for (int beats = 2; !done; ++beats) {
      const fs::path next = directory_ / "next";
      std::ofstream(next) << elsewhere(beats);
      fs::rename(next, file(3));
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  const std::string text = refusal(kPatient);
  done = true;
  heart.join();
  EXPECT_TRUE(holds(text, "(elsewhere, process 7)")) << text;
  EXPECT_FALSE(fs::exists(file(4))) << "the living lease was taken";
}

TEST_F(LeaseTest, FilesThatSayNothingAreTakenAfterAWhile) {
  int number = 1;
  for (const char* text : {"", "nonsense", "{}", "[1, 2]", R"({"host": 5, "process": "x"})"}) {
    write(text, number);
    EXPECT_EQ(refusal(), "no error") << text;
    number += 2;
  }
}

TEST_F(LeaseTest, TheLosingHolderNotices) {
  const auto loss = [](const Lease& lease) {
    std::string text = "no error";
    for (int i = 0; i < 1000 && text == "no error"; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
      text = error_of([&] { lease.check(); });
    }
    return text;
  };
  {
    const Lease lease(dir(), kQuick);
    write(elsewhere(1), 2);
    const std::string text = loss(lease);
    EXPECT_TRUE(holds(text, "found a later one of process 7 of elsewhere, expected the lease of this process")) << text;
  }
  const Lease lease(dir(), kQuick);
  fs::remove(file(3));
  EXPECT_TRUE(holds(loss(lease), "found none"));
}

TEST_F(LeaseTest, OldFilesAreRemovedAndOthersLeftAlone) {
  write(elsewhere(1), 6);
  write(elsewhere(1), 5);
  write("notes", 4);
  fs::rename(file(4), dir() / "notes");
  fs::last_write_time(file(5), fs::file_time_type::clock::now() - std::chrono::hours(25));
  EXPECT_EQ(refusal(), "no error");
  EXPECT_FALSE(fs::exists(file(5)));
  EXPECT_TRUE(fs::exists(file(6)));
  EXPECT_TRUE(fs::exists(file(7)));
  EXPECT_TRUE(fs::exists(dir() / "notes"));
}

// Many that find a dead lease: one gets it.
TEST_F(LeaseTest, OneOfManyTakesADeadLease) {
  int number = 1;
  for (int round = 0; round < 3; ++round) {
    write(elsewhere(round), number);
    std::atomic<int> got = 0;
    std::vector<std::unique_ptr<Lease>> leases(8);
    std::vector<std::thread> threads;
    for (auto& lease : leases)
      threads.emplace_back([&] {
        try {
          lease = std::make_unique<Lease>(dir(), LeaseTimes{milliseconds(50), milliseconds(2'000)});
          ++got;
        } catch (const data::Error&) {
          // Another one was first.
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(got, 1) << "round " << round;
    for (const auto& lease : leases)
      if (lease) {
        EXPECT_NO_THROW(lease->check());
      }
    number += 2;
  }
}

}  // namespace
}  // namespace routescope::train
