// precision: auto is the faster one of a new run, and a resumed run's own.
#include "train/plan/precision.h"

#include <gtest/gtest.h>

#include "data/base/error.h"
#include "data/base/files.h"
#include "tests/train/run/micro_run.h"
#include "train/plan/plan_text.h"

namespace routescope::train {
namespace {

TEST(Precision, IsTheFasterOne) {
  EXPECT_EQ(faster_precision({.f32 = 440e9, .bf16 = 900e9}), "bf16");
  EXPECT_EQ(faster_precision({.f32 = 440e9, .bf16 = 242e9}), "f32");
  EXPECT_EQ(faster_precision({.f32 = 440e9, .bf16 = 460e9}), "f32");  // rounding takes more than that
}

TEST(Precision, IsMeasuredWhereTheProcessorHasAChoice) {
  if (const std::optional<ProductRates> rates = measure_product_rates(0.01)) {
    EXPECT_GT(rates->f32, 0);
    EXPECT_GT(rates->bf16, 0);
  }
}

TEST(Precision, OfANewRunIsNeverAuto) {
  const testing::MicroRun micro;
  TrainConfig config = micro.config("new", {"precision=auto"});
  ASSERT_EQ(config.precision, "auto");
  resolve_precision(config, 0.01);
  EXPECT_TRUE(config.precision == "f32" || config.precision == "bf16") << config.precision;
  config.precision = "auto";
  config.device = "cuda";
  resolve_precision(config, 0.01);
  EXPECT_EQ(config.precision, "bf16");
}

/// Also on a machine where the other one is faster: both are resumed, and one of them is the other.
TEST(Precision, OfAResumedRunIsItsOwn) {
  const testing::MicroRun micro;
  for (const std::string precision : {"f32", "bf16"}) {
    micro.train(precision, {"train.steps=4", "train.schedule.kind=constant", "precision=" + precision});
    TrainConfig config = micro.config(precision, {"train.steps=6", "train.schedule.kind=constant", "precision=auto"});
    resolve_precision(config, 0.01);
    EXPECT_EQ(config.precision, precision);
    config.precision = "auto";
    config.device = "cuda";
    resolve_precision(config, 0.01);
    EXPECT_EQ(config.precision, precision);
  }
}

TEST(Precision, OfARunWithoutConfigurationIsAnError) {
  const testing::MicroRun micro;
  std::filesystem::create_directories(micro.dir("cut") / "checkpoints");
  TrainConfig config = micro.config("cut", {"precision=auto"});
  EXPECT_THROW(resolve_precision(config, 0.01), data::Error);
  config.precision = "f32";
  EXPECT_NO_THROW(resolve_precision(config, 0.01));
}

}  // namespace
}  // namespace routescope::train
