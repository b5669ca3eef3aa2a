// `dump` against what transformers' Qwen3 and an independent AttnRes implementation computed (tests/fixtures).
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "data/hdf5/file.h"
#include "model/commands/dump.h"
#include "model/pass/intervention.h"
#include "tests/model/pass/micro.h"
#include "tests/places.h"

namespace routescope::model {
namespace {

namespace fs = std::filesystem;

class Fixture : public ::testing::TestWithParam<std::string> {
 protected:
  fs::path dir = fs::path(testing::source_dir()) / "tests/fixtures" / GetParam();
};

struct Values {
  data::hdf5::Shape shape;
  std::vector<double> values;
};

Values read(const data::hdf5::File& file, const std::string& path) {
  Values out;
  out.values = file.read<double>(path, &out.shape);
  return out;
}

/// max |found - expected|; NaN must stand against NaN.
double largest_difference(const Values& found, const Values& expected) {
  double worst = 0;
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    EXPECT_EQ(std::isnan(found.values[i]), std::isnan(expected.values[i])) << "element " << i;
    if (!std::isnan(expected.values[i])) worst = std::max(worst, std::abs(found.values[i] - expected.values[i]));
  }
  return worst;
}

double largest(const Values& values) {
  double out = 0;
  for (double v : values.values)
    if (!std::isnan(v)) out = std::max(out, std::abs(v));
  return out;
}

TEST_P(Fixture, DumpAgrees) {
  const Model model = Model::load(dir, {});
  RoutingIntervention intervention;
  if (fs::exists(dir / "logit_bias.h5")) intervention.logit_bias = read_logit_bias(dir / "logit_bias.h5", model.plan());
  const micro::TemporaryDirectory temporary;
  const fs::path file = temporary.path / "dump.h5";
  const TokenBatch tokens = read_tokens((dir / "expected.h5").string(), 0, 0, model.config().vocab_size);
  dump(model, tokens, intervention, true, file);

  const data::hdf5::File found = data::hdf5::File::open(file), expected = data::hdf5::File::open(dir / "expected.h5");
  EXPECT_EQ(found.read<std::int64_t>("tokens"), expected.read<std::int64_t>("tokens"));
  for (const char* path : {"logits", "nll"}) {
    const Values a = read(found, path), b = read(expected, path);
    ASSERT_EQ(a.shape, b.shape) << path;
    const double relative = largest_difference(a, b) / largest(b);
    std::printf("%s: %s differ by %.1e of the largest\n", GetParam().c_str(), path, relative);
    EXPECT_LT(relative, 2e-5) << path;
  }
  ASSERT_EQ(found.exists("alpha"), expected.exists("alpha"));
  if (expected.exists("alpha")) {
    EXPECT_EQ(found.read_text("read"), expected.read_text("read"));
    EXPECT_EQ(found.read_text("source"), expected.read_text("source"));
    const Values a = read(found, "alpha"), b = read(expected, "alpha");
    ASSERT_EQ(a.shape, b.shape);
    const double difference = largest_difference(a, b);
    std::printf("%s: alpha differs by %.1e\n", GetParam().c_str(), difference);
    EXPECT_LT(difference, 1e-5);
  }
  // Each tensor's gradient against the largest gradient of its own, with a floor for gradients that are zero by
  // construction.
  double worst = 0, floor = 0;
  for (const ParameterInfo& info : model.layout().all())
    floor = std::max(floor, largest(read(expected, "grad/" + info.name)));
  for (const ParameterInfo& info : model.layout().all()) {
    const Values a = read(found, "grad/" + info.name), b = read(expected, "grad/" + info.name);
    ASSERT_EQ(a.shape, b.shape) << info.name;
    const double relative = largest_difference(a, b) / std::max(largest(b), 1e-3 * floor);
    EXPECT_LT(relative, 1e-4) << info.name;
    worst = std::max(worst, relative);
  }
  std::printf("%s: gradients differ by %.1e of the largest of their tensor\n", GetParam().c_str(), worst);
}

std::vector<std::string> fixtures() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(fs::path(testing::source_dir()) / "tests/fixtures"))
    if (fs::exists(entry.path() / "expected.h5")) out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Fixtures, AllModesArePresent) {
  std::set<std::pair<Residual, AttnResSource>> seen;
  for (const std::string& name : fixtures()) {
    const ModelConfig c = ModelConfig::load(fs::path(testing::source_dir()) / "tests/fixtures" / name / "config.json");
    seen.insert({c.residual, c.routed() ? c.source : AttnResSource::block_sum});
  }
  EXPECT_EQ(seen.size(), 5u);
}

INSTANTIATE_TEST_SUITE_P(All, Fixture, ::testing::ValuesIn(fixtures()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace routescope::model
