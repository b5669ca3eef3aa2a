// Durations as text.
#include "train/plan/duration.h"

#include <gtest/gtest.h>

namespace routescope::train {
namespace {

TEST(Duration, IsRoundedToTwoUnits) {
  EXPECT_EQ(format_duration(0.2), "0s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(3600 + 62), "1h01m");
  EXPECT_EQ(format_duration(90000), "1d01h");
  EXPECT_EQ(format_duration(-1), "0s");
}

}  // namespace
}  // namespace routescope::train
