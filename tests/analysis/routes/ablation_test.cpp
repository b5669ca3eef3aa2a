// What each ablation does to a read's weights, which routes a name stands for, and what controls are matched to.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "analysis/routes/prepare.h"
#include "data/base/error.h"
#include "model/pass/intervention.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/data/base/expect_error.h"

namespace routescope::analysis {
namespace {

using testing::micro_config;
using testing::micro_model;

constexpr Ablation every_ablation[] = {Ablation::mask,     Ablation::zero,   Ablation::mean,
                                       Ablation::resample, Ablation::freeze, Ablation::patch};

/// 6 layers in 3 blocks of 2.
model::ReadPlan micro_plan(model::AttnResSource source = model::AttnResSource::block_sum) {
  return model::ReadPlan(testing::micro_config(model::Residual::block_attn_res, source));
}

std::vector<std::string> names_of(const std::vector<int>& reads, const model::ReadPlan& plan) {
  std::vector<std::string> names;
  for (int r : reads) names.push_back(plan.reads[static_cast<std::size_t>(r)].name);
  return names;
}

TEST(AblationNames, AreReadAsTheyAreWritten) {
  for (Ablation ablation : every_ablation) {
    EXPECT_EQ(ablation_from_string(to_string(ablation)), ablation);
    EXPECT_EQ(describe(ablation).find(to_string(ablation) + ":"), 0U);
  }
  EXPECT_EQ(data::error_of([] { ablation_from_string("mak"); }),
            "ablation: found 'mak', expected one of mask, zero, mean, resample, freeze, patch, mean_key, mean_both, "
            "resample_value, resample_key, resample_both, patch_value, patch_key, patch_both");
}

TEST(RouteSets, OfAnAskedNameAreItsReadsAndSources) {
  const model::ReadPlan plan = micro_plan();
  using Names = std::vector<std::string>;
  const RouteSet pair = parse_route_set("3.attn:block_1", plan);
  EXPECT_EQ(pair.name, "3.attn:block_1");
  EXPECT_EQ(pair.reads, std::vector<int>{6});
  EXPECT_EQ(pair.routes, (std::vector<std::pair<int, int>>{{6, 1}}));

  const RouteSet range = parse_route_set(" 2.mlp-4.attn : history ", plan);
  EXPECT_EQ(names_of(range.reads, plan), (Names{"2.mlp", "3.attn", "3.mlp", "4.attn"}));
  // 4.attn has block_1 as a source; block_2 is then its current one.
  EXPECT_EQ(range.routes, (std::vector<std::pair<int, int>>{{5, 1}, {6, 1}, {7, 1}, {8, 1}}));

  const RouteSet read = parse_route_set("final", plan);
  EXPECT_EQ(names_of(read.reads, plan), Names{"final"});
  EXPECT_EQ(read.routes.size(), plan.reads.back().columns.size());

  const RouteSet two = parse_route_set("attn:embedding, current", plan);
  EXPECT_EQ(two.reads.size(), 6U);
  EXPECT_EQ(two.routes.size(), 11U);  // 0.attn has the embedding alone
  EXPECT_EQ(parse_route_set("mlp", plan).reads.size(), 6U);
  EXPECT_EQ(parse_route_set("all:current", plan).reads.size(), 13U);
  for (const RouteSet& slice : slice_sets(plan)) {
    EXPECT_EQ(parse_route_set(slice.name, plan), slice);
    const std::string family = slice.name.substr(0, slice.name.find('.')),
                      place = slice.name.substr(slice.name.find('.') + 1);
    if (slice.routes.empty()) continue;
    EXPECT_EQ(parse_route_set(place + ":" + family, plan).routes, slice.routes);
  }
  EXPECT_EQ(route_sets({}, plan), slice_sets(plan));

  const std::vector<std::string> each = {"routes"};
  std::size_t count = 0;
  for (const RouteSet& set : route_sets(each, plan)) {
    EXPECT_EQ(parse_route_set(set.name, plan), set);
    ASSERT_EQ(set.routes.size(), 1U);
    ++count;
  }
  EXPECT_EQ(count, parse_route_set("all", plan).routes.size());

  // 5.mlp and final have block_1 and block_2 completed, 3.attn only block_1.
  EXPECT_EQ(parse_route_set("5.mlp:newest", plan).routes, (std::vector<std::pair<int, int>>{{11, 2}}));
  EXPECT_EQ(parse_route_set("5.mlp:older", plan).routes, (std::vector<std::pair<int, int>>{{11, 1}}));
  EXPECT_EQ(parse_route_set("3.attn:newest", plan).routes, (std::vector<std::pair<int, int>>{{6, 1}}));
  EXPECT_EQ(parse_route_set("all:newest,older", plan).routes, parse_route_set("all:history", plan).routes);
  EXPECT_EQ(data::error_of([&] { parse_route_set("3.attn:older", plan); }),
            "set of routes '3.attn:older': none of its reads has such a source");
}

TEST(RouteSets, NameWhatIsUnknown) {
  const model::ReadPlan plan = micro_plan();
  const auto error = [&](const std::string& text) { return data::error_of([&] { parse_route_set(text, plan); }); };
  EXPECT_EQ(error("9.attn"),
            "set of routes '9.attn': found read '9.attn', expected 0.attn to final, a range of them, attn, mlp "
            "(or one depth of them: attn.late) or all");
  EXPECT_EQ(error("3.attn:block_9"),
            "set of routes '3.attn:block_9': found source 'block_9', expected some of embedding, block_1, block_2, "
            "current (history: every block; newest: the last of them in each read; older: the others)");
  EXPECT_EQ(error("0.mlp:block_2"), "set of routes '0.mlp:block_2': none of its reads has such a source");
  EXPECT_EQ(error("3.mlp-3.attn"), "set of routes '3.mlp-3.attn': the range ends before it starts");
  EXPECT_NE(error("3.attn:"), "no error");
  EXPECT_NE(error(""), "no error");
  const std::vector<std::string> twice = {"3.attn", "3.mlp", "3.attn"};
  EXPECT_EQ(data::error_of([&] { route_sets(twice, plan); }), "set of routes '3.attn': is named twice");
  const std::vector<std::string> respelled = {"3.mlp", "3.attn:block_1", "3.attn:history"};
  EXPECT_EQ(data::error_of([&] { route_sets(respelled, plan); }),
            "set of routes '3.attn:history': has the same routes as '3.attn:block_1', expected each set once");
}

/// It has no slices (its record holds writers alone); what is named is refused.
TEST(RouteSets, OfAModelWithoutReadsAreRefusedByName) {
  const model::ReadPlan plan(testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum));
  const std::string expected =
      "the model's residual stream is 'standard': it has no reads to probe, expected a routed model";
  const std::vector<std::string> names = {"3.attn", "embedding.mlp.early"};
  EXPECT_EQ(data::error_of([&] { route_sets(names, plan); }), expected);
  EXPECT_TRUE(route_sets({}, plan).empty());
  EXPECT_EQ(data::error_of([&] { parse_route_set("all", plan); }), expected);
}

/// alpha of 2 sequences of 4 tokens over n sources, rows that sum to one and differ.
std::vector<double> rows_of_weights(std::size_t sources) {
  std::vector<double> alpha;
  for (std::size_t token = 0; token < 8; ++token) {
    double total = 0;
    for (std::size_t i = 0; i < sources; ++i) total += static_cast<double>((token * 3 + i * 5) % 11 + 1);
    for (std::size_t i = 0; i < sources; ++i)
      alpha.push_back(static_cast<double>((token * 3 + i * 5) % 11 + 1) / total);
  }
  return alpha;
}

TEST(PreparedAblations, ChangeTheTermsOfTheirRoutesByTheirShareAndNothingElse) {
  const model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  const model::ReadPlan& plan = model.plan();
  const int r = 6;  // 3.attn: embedding, block_1, current
  const std::size_t sources = 3, gated = 1;
  ASSERT_EQ(plan.reads[6].columns, (std::vector<int>{0, 1, 3}));
  Reference reference;
  reference.alpha_mean.assign(static_cast<std::size_t>(plan.num_routed() * plan.num_columns()), 0.125);
  for (std::size_t read = 0; read < plan.reads.size(); ++read)
    reference.source_mean.emplace_back(16, static_cast<double>(read));
  const std::vector<double> alpha = rows_of_weights(sources);
  KeptPass donors;
  donors.alpha.assign(13, std::vector<double>(alpha.size()));
  for (std::size_t i = 0; i < alpha.size(); ++i) donors.alpha[6][i] = 0.5 - alpha[i];
  const BatchPlace place{5, 2, 4, 3, &donors};
  for (double share : {1.0, 0.25}) {
    SCOPED_TRACE(share);
    const GatedRoute route{r, 1, share};
    for (Ablation ablation : {Ablation::zero, Ablation::mean, Ablation::resample, Ablation::freeze, Ablation::patch}) {
      SCOPED_TRACE(to_string(ablation));
      const PreparedAblation prepared = prepare_ablation(model, ablation, {&route, 1}, reference, place);
      EXPECT_EQ(prepared.changed_reads, std::vector<int>{r});
      EXPECT_TRUE(prepared.intervention.logit_bias.empty());
      ASSERT_EQ(prepared.intervention.edits.size(), 1U);
      const model::ReadEdit& edit = prepared.intervention.edits.at(r);
      const std::size_t width = sources + edit.extra.size();
      EXPECT_EQ(edit.extra.size(), ablation == Ablation::mean ? 1U : 0U);
      std::vector<double> edited(8 * width, std::nan(""));
      edit.alpha(alpha, edited);
      for (std::size_t token = 0; token < 8; ++token) {
        const double was = alpha[token * sources + gated];
        const auto donor = static_cast<std::size_t>(resample_donor(3, 5 + static_cast<std::int64_t>(token / 4),
                                                                   static_cast<std::int64_t>(token % 4), 4)) +
                           token / 4 * 4;
        const double becomes = ablation == Ablation::resample ? alpha[donor * sources + gated]
                               : ablation == Ablation::freeze ? 0.125
                               : ablation == Ablation::patch  ? 0.5 - was
                                                              : 0.0;
        EXPECT_EQ(edited[token * width], alpha[token * sources]);
        EXPECT_EQ(edited[token * width + 2], alpha[token * sources + 2]);
        EXPECT_DOUBLE_EQ(edited[token * width + gated], (1 - share) * was + share * becomes);
        if (edit.extra.size() == 1) {
          EXPECT_DOUBLE_EQ(edited[token * width + sources], share * was);
        }
      }
      if (ablation == Ablation::mean) {
        // block_1 is the partial of the read that block 2 opens with: 2.attn, read 4.
        for (double value : kernels::host_values<double>(edit.extra[0].table, kernels::Stream{})) EXPECT_EQ(value, 4.0);
      }
    }
    const PreparedAblation mask = prepare_ablation(model, Ablation::mask, {&route, 1}, {}, {});
    EXPECT_TRUE(mask.intervention.edits.empty());
    for (int read = 0; read < plan.num_routed(); ++read) {
      for (int c = 0; c < plan.num_columns(); ++c) {
        const double bias = mask.intervention.logit_bias[static_cast<std::size_t>(read)][static_cast<std::size_t>(c)];
        EXPECT_DOUBLE_EQ(std::exp(bias), read == r && c == 1 ? 1 - share : 1.0);
      }
    }
  }
}

TEST(PreparedAblations, MoveAKeyByItsShare) {
  const model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  const int r = 6;  // 3.attn: embedding, block_1, current
  KeptPass donors;
  donors.logits.assign(13, std::vector<double>(8 * 3, 2.0));
  const std::vector<double> logits = rows_of_weights(3);
  for (double share : {1.0, 0.25}) {
    const GatedRoute route{r, 1, share};
    for (Ablation ablation : {Ablation::resample_key, Ablation::patch_key}) {
      const PreparedAblation prepared =
          prepare_ablation(model, ablation, {&route, 1}, {}, BatchPlace{5, 2, 4, 3, &donors});
      const model::ReadEdit& edit = prepared.intervention.edits.at(r);
      EXPECT_TRUE(edit.extra.empty() && !edit.alpha);
      std::vector<double> changed = logits;
      edit.logits(changed);
      for (std::size_t token = 0; token < 8; ++token) {
        const auto donor = static_cast<std::size_t>(resample_donor(3, 5 + static_cast<std::int64_t>(token / 4),
                                                                   static_cast<std::int64_t>(token % 4), 4)) +
                           token / 4 * 4;
        const double other = ablation == Ablation::patch_key ? 2.0 : logits[donor * 3 + 1];
        EXPECT_DOUBLE_EQ(changed[token * 3 + 1], (1 - share) * logits[token * 3 + 1] + share * other);
        EXPECT_EQ(changed[token * 3], logits[token * 3]);
        EXPECT_EQ(changed[token * 3 + 2], logits[token * 3 + 2]);
      }
    }
  }
}

TEST(Parts, HaveNames) {
  EXPECT_EQ(with_part(Ablation::mean, Part::value), Ablation::mean);
  EXPECT_EQ(with_part(Ablation::resample, Part::key), Ablation::resample_key);
  EXPECT_EQ(with_part(Ablation::patch_value, Part::both), Ablation::patch_both);
  for (Ablation one : {Ablation::mask, Ablation::zero, Ablation::freeze})
    EXPECT_EQ(data::error_of([&] { with_part(one, Part::key); }),
              "--part: found the ablation " + to_string(one) + ", expected mean, resample or patch");
  EXPECT_EQ(data::error_of([] { part_from_string("weight"); }), "--part: found 'weight', expected value, key or both");
  for (Ablation one : all_ablations()) EXPECT_EQ(ablation_from_string(to_string(one)), one);
}

TEST(PreparedAblations, SayWhatTheyLack) {
  const model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  const GatedRoute route{6, 1, 1.0};
  for (Ablation ablation : all_ablations()) {
    if (donor_of(ablation) == Donor::none || donor_of(ablation) == Donor::position) continue;
    EXPECT_THROW(prepare_ablation(model, ablation, {&route, 1}, {}, {0, 1, 4, 1}), std::invalid_argument)
        << to_string(ablation);
  }
}

TEST(Means, AreRefusedWhereCudaHasNoRoomForThem) {
  const model::ReadPlan plan(
      testing::micro_config(model::Residual::full_attn_res, model::AttnResSource::block_sum, 40));
  const auto error = [&](kernels::Device device, Ablation ablation, const std::string& name) {
    return data::error_of(
        [&] { expect_room_for_means(plan, device, ablation, name, whole(parse_route_set(name, plan))); });
  };
  // 31.mlp has 63 completed sources and its current one, 32.attn one more.
  EXPECT_EQ(
      error(kernels::Device::cuda, Ablation::mean, "all"),
      "set of routes 'all', ablation mean: read 32.attn: found 64 completed sources and 65 means, expected at most "
      "128 together on CUDA");
  EXPECT_EQ(error(kernels::Device::cuda, Ablation::mean, "31.mlp"), "no error");
  EXPECT_EQ(error(kernels::Device::cuda, Ablation::mean, "39.mlp:current"), "no error");
  EXPECT_EQ(error(kernels::Device::cuda, Ablation::freeze, "all"), "no error");
  EXPECT_EQ(error(kernels::Device::cpu, Ablation::mean, "all"), "no error");
}

TEST(Coverage, CountsReadsThatAnAblationCannotChange) {
  const model::ReadPlan plan = micro_plan();
  const std::vector<RouteSet> slices = slice_sets(plan);
  const std::map<Ablation, double> first = {// 0.attn has the embedding alone: nothing is left to mask, its weight is
                                            // always 1; 1.attn can be changed.
                                            {Ablation::mask, 0.5},     {Ablation::zero, 1.0},   {Ablation::mean, 1.0},
                                            {Ablation::resample, 0.5}, {Ablation::freeze, 0.5}, {Ablation::patch, 0.5}};
  for (const auto& [ablation, expected] : first) {
    SCOPED_TRACE(to_string(ablation));
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, slices[0]), expected);
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, slices[3]), 1.0);
    // No block is complete before layer 2: early reads have no history.
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, slices[6]), 0.0);
    // 2.attn sees the embedding and, as its current source, block 1 itself; 3.attn has block 1 in its history.
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, slices[7]), 0.5);
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, slices[17]), 1.0);
    EXPECT_TRUE(std::isnan(coverage(plan, ablation, RouteSet{"none", {}, {}})));
    // A whole read: mask would leave it nothing.
    EXPECT_DOUBLE_EQ(coverage(plan, ablation, parse_route_set("3.attn", plan)), ablation == Ablation::mask ? 0.0 : 1.0);
  }
}

TEST(Coverage, MasksLeaveEveryReadASource) {
  for (model::AttnResSource source : {model::AttnResSource::block_sum, model::AttnResSource::cumulative}) {
    const model::Model model = testing::micro_model(testing::micro_config(model::Residual::block_attn_res, source));
    const model::ReadPlan& plan = model.plan();
    for (const RouteSet& slice : slice_sets(plan)) {
      const PreparedAblation mask = prepare_ablation(model, Ablation::mask, whole(slice), {}, {});
      EXPECT_EQ(mask.changed_reads, changed_reads(plan, Ablation::mask, whole(slice)));
      for (int r = 0; r < plan.num_routed(); ++r) {
        const bool masked =
            std::find(mask.changed_reads.begin(), mask.changed_reads.end(), r) != mask.changed_reads.end();
        int kept = 0;
        for (int column : plan.reads[static_cast<std::size_t>(r)].columns) {
          const bool of_slice =
              std::find(slice.routes.begin(), slice.routes.end(), std::pair{r, column}) != slice.routes.end();
          const bool hidden =
              !mask.intervention.logit_bias.empty() &&
              mask.intervention.logit_bias[static_cast<std::size_t>(r)][static_cast<std::size_t>(column)] == -INFINITY;
          EXPECT_EQ(hidden, masked && of_slice) << slice.name << " read " << r;
          kept += !hidden;
        }
        EXPECT_GT(kept, 0) << slice.name << " read " << r;
      }
    }
  }
}

TEST(ResampleDonors, AreOtherTokensOfTheSequenceUniformly) {
  constexpr std::int64_t positions = 5;
  constexpr int draws = 20000;
  for (std::int64_t position = 0; position < positions; ++position) {
    std::map<std::int64_t, int> drawn;
    for (int q = 0; q < draws; ++q) ++drawn[resample_donor(7, q, position, positions)];
    EXPECT_EQ(drawn.size(), 4U);
    for (const auto& [donor, count] : drawn) {
      EXPECT_TRUE(donor >= 0 && donor < positions && donor != position);
      // Binomial, p = 1/4: five standard deviations.
      EXPECT_NEAR(count, draws / 4.0, 5 * std::sqrt(draws * 0.25 * 0.75)) << position << " from " << donor;
    }
  }
  int other = 0;
  for (int q = 0; q < 100; ++q) other += resample_donor(7, q, 2, positions) != resample_donor(8, q, 2, positions);
  EXPECT_GT(other, 50);  // 75 expected
  EXPECT_EQ(resample_donor(1, 3, 0, 2), 1);
  EXPECT_EQ(resample_donor(1, 3, 1, 2), 0);
}

}  // namespace
}  // namespace routescope::analysis
