// Numbers, steps and lists read as people write them.
#include "analysis/report/wording.h"

#include <gtest/gtest.h>

#include <cmath>

namespace routescope::analysis {
namespace {

TEST(Wording, ReadsAsPeopleWrite) {
  EXPECT_EQ(number_text("{:+.2f}", -0.5), "\u22120.50");
  EXPECT_EQ(number_text("{:.2f}", std::nan("")), "\u2013");
  EXPECT_EQ(number_text("{:.2f}", INFINITY), "\u221e");
  EXPECT_EQ(number_text("{:+.2f}", -0.001), "+0.00");
  EXPECT_EQ(percent_text(0.1234), "12.3\u00a0%");
  EXPECT_EQ(estimate_text({0.5, {0.25, 0.75}}, "{:.2f}"), "0.50 [0.25, 0.75]");
  const std::vector<std::int64_t> steps{32, 64, 1'234'567};
  EXPECT_EQ(onset_text({64, {32, INFINITY}}, steps), "64 [32, never]");
  EXPECT_EQ(onset_text({.value = 1'234'567}, steps), "1234567");
  EXPECT_EQ(onset_text({32, {32, 64}}, steps), "at or before 32 [32, 64]");
  EXPECT_EQ(onset_text({}, steps), "not shown");
  EXPECT_EQ(onset_text({32, {32, 32}}, std::span(steps).first(1)), "\u2013");
  EXPECT_EQ(thousands_text(-1234567), "-1\u202f234\u202f567");
  EXPECT_EQ(list_text({}), "none");
  EXPECT_EQ(list_text({"a", "b", "c"}), "a, b and c");
  EXPECT_EQ(set_text("embedding.mlp.early"), "embedding \u2192 early MLP");
  EXPECT_EQ(set_text("3.attn:block_2"), "3.attn:block_2");
  // The current state into early attention and MLPs, and into late attention.
  EXPECT_EQ(slices_text({12, 14, 15}), "current \u2192 early attention and MLP, late attention");
}

}  // namespace
}  // namespace routescope::analysis
