// The slices partition the routes of every plan, and so do their masses.
#include "analysis/routes/slices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "analysis/commands/tables.h"
#include "analysis/routes/route_sets.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::analysis {
namespace {

using testing::micro_config;

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

class Slices : public ::testing::TestWithParam<Mode> {
 protected:
  model::ReadPlan plan(std::int64_t layers = 6) const {
    return model::ReadPlan(testing::micro_config(GetParam().residual, GetParam().source, layers));
  }
};

INSTANTIATE_TEST_SUITE_P(
    Modes, Slices,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
                      Mode{"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum},
                      Mode{"full_cumulative", model::Residual::full_attn_res, model::AttnResSource::cumulative}),
    [](const auto& mode) { return std::string(mode.param.name); });

TEST_P(Slices, PartitionEveryRouteOnceButTheFinalReads) {
  for (std::int64_t layers : {1, 2, 5, 6, 13}) {
    const model::ReadPlan routes = plan(layers);
    std::map<std::pair<int, int>, int> held;
    for (const Slice& slice : make_slices(routes)) {
      for (const auto& [read, column] : slice.routes) {
        ++held[{read, column}];
        const auto& at = routes.reads[static_cast<std::size_t>(read)];
        EXPECT_EQ(routes.family(column), slice.family);
        EXPECT_EQ(at.sublayer, slice.sublayer);
        EXPECT_EQ(3 * at.layer / layers, static_cast<std::int64_t>(slice.depth));
      }
    }
    std::size_t expected = 0;
    for (int r = 0; r < routes.num_routed(); ++r) {
      const model::Read& read = routes.reads[static_cast<std::size_t>(r)];
      if (read.sublayer == model::Sublayer::final) continue;
      for (int column : read.columns) EXPECT_EQ((held[{r, column}]), 1) << read.name << " column " << column;
      expected += read.columns.size();
    }
    EXPECT_EQ(held.size(), expected);
  }
}

TEST_P(Slices, StandInTheirFixedOrderAndName) {
  const std::vector<Slice> slices = make_slices(plan());
  ASSERT_EQ(slices.size(), static_cast<std::size_t>(num_slices));
  for (std::size_t s = 0; s < slices.size(); ++s) EXPECT_EQ(slices[s].name(), slice_name(s));
  EXPECT_EQ(slices[0].name(), "embedding.attn.early");
  EXPECT_EQ(slices[10].name(), "history.mlp.mid");
  EXPECT_EQ(slices[17].name(), "current.mlp.late");
}

TEST_P(Slices, MassesOfTheFamiliesSumToOne) {
  const model::ReadPlan routes = plan();
  // Any weights that sum to one within each read.
  std::vector<double> alpha(static_cast<std::size_t>(routes.num_routed() * routes.num_columns()),
                            std::numeric_limits<double>::quiet_NaN());
  for (int r = 0; r < routes.num_routed(); ++r) {
    const std::vector<int>& columns = routes.reads[static_cast<std::size_t>(r)].columns;
    const double total = static_cast<double>(columns.size() * (columns.size() + 1)) / 2;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      alpha[static_cast<std::size_t>(r * routes.num_columns() + columns[i])] = static_cast<double>(i + 1) / total;
    }
  }
  const std::vector<double> mass = set_masses(slice_sets(routes), alpha, routes.num_columns());
  for (std::size_t s = 0; s < 6; ++s) EXPECT_NEAR(mass[s] + mass[s + 6] + mass[s + 12], 1.0, 1e-14) << slice_name(s);
}

// With one layer everything is early.
TEST(SliceMasses, AreUnknownForASliceWithoutReads) {
  const model::ReadPlan plan(
      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::cumulative, 1));
  const std::vector<RouteSet> slices = slice_sets(plan);
  EXPECT_TRUE(slices[2].reads.empty());
  const std::vector<double> alpha(static_cast<std::size_t>(plan.num_routed() * plan.num_columns()), 0.5);
  EXPECT_TRUE(std::isnan(set_masses(slices, alpha, plan.num_columns())[2]));
  EXPECT_DOUBLE_EQ(set_masses(slices, alpha, plan.num_columns())[0], 0.5);
}

}  // namespace
}  // namespace routescope::analysis
