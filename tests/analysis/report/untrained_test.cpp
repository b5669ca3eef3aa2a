// Of models that have learned nothing no page states a motif or a dissociation, whatever their shape.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "analysis/probe/probe.h"
#include "analysis/report/claim_text.h"
#include "analysis/report/study.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::analysis {
namespace {

/// Of a random shape.
model::ModelConfig random_config(std::mt19937_64& random) {
  const auto one_of = [&](std::initializer_list<std::int64_t> values) {
    return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
  };
  const auto source = random() % 2 == 0 ? model::AttnResSource::block_sum : model::AttnResSource::cumulative;
  const auto residual = random() % 4 == 0 ? model::Residual::full_attn_res : model::Residual::block_attn_res;
  model::ModelConfig config = testing::micro_config(residual, source, one_of({3, 5, 6, 9}));
  config.num_blocks = one_of({2, 3, config.num_hidden_layers});
  config.recency_bias = random() % 2 == 0 ? 0 : 1.5;
  config.initializer_range = random() % 2 == 0 ? 0.02 : 0.3;
  return config;
}

TEST(Untrained, NoVerdictStandsOnModelsOfRandomShapes) {
  std::mt19937_64 random(20261130);
  for (int number = 0; number < 10; ++number) {
    const model::ModelConfig config = random_config(random);
    SCOPED_TRACE(config.to_json().dump());
    model::Model model(config, {});
    model.initialize(random());
    ProbeTokens tokens = testing::micro_tokens(32, 12, random());
    for (std::int64_t i = 0; i < tokens.sequences; ++i) tokens.documents.push_back(i);
    StudyRun run;
    run.name = "untrained";
    run.record.identity = identify(config, tokens, {.controls = 4});
    run.record.put(probe(model, run.record.identity, 0, *kernels::single_communicator(), {.initial = true}));
    const double initial_nll = run.record.rows[0].intact_nll;
    const auto expect_no_verdict = [&] {
      const Study study = make_study({run});
      const std::vector<Claim> claims = claims_of(study);
      for (std::size_t claim : {1, 2}) {
        EXPECT_EQ(claims[claim].tone, "open") << claims[claim].verdict;
        for (const std::string& sentence : claims[claim].evidence) {
          for (const char* stated : {"Shown from", ", shown to differ", "Idle by", "tend to matter", "Not only these"})
            EXPECT_EQ(sentence.find(stated), std::string::npos) << sentence;
        }
      }
      for (const Motif& motif : study.findings().motifs) EXPECT_TRUE(std::isnan(motif.shown_from)) << motif.name;
      for (const Contest& contest : study.findings().dissociation.back().contests) EXPECT_FALSE(contest.differ());
    };
    expect_no_verdict();
    // A later step at which the queries have moved a little, and nothing was learned to speak of.
    std::uint64_t sequence = 0;
    for (const model::ReadWeights& read : model.weights().reads)
      kernels::random_normal(read.query, 0.1, 12, sequence++, kernels::Stream{});
    model.refresh_operands();
    run.record.put(
        probe(model, run.record.identity, 1, *kernels::single_communicator(), {.reference_nll = initial_nll}));
    expect_no_verdict();
  }
}

}  // namespace
}  // namespace routescope::analysis
