// Writers of models of which it is known what every sublayer does.
#include "analysis/writers/writers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/analysis/planted/mechanisms.h"

namespace routescope::planted {
namespace {

constexpr double right = 0.9;
const double beta = std::log(right / (1 - right));

/// As (b), only_history(), beside the embedding, which nobody reads: without the first layer's attention something else
/// is left of the read, and not rounding alone, which its norm would enlarge.
Mechanism fetched_answer() {
  Machine machine(beta, unread);
  machine.copy_previous(0, other, unread, tag_1);
  machine.weigh_embedding("2.mlp", recency);
  machine.weigh_block("2.mlp", tag_1, recency);
  return {"fetched answer", std::move(machine), previous_other, {}};
}

struct Measured {
  explicit Measured(const Mechanism& mechanism)
      : names(analysis::writer_names(mechanism.machine.model().plan())),
        tokens(draw_text(mechanism.intact, right, 64, 5)) {
    analysis::ProbeSettings settings;
    settings.writers = true;
    const model::Model& model = mechanism.machine.model();
    writers = analysis::measure_writers(model, analysis::identify(model.config(), tokens, settings), 0, 0.01,
                                        *kernels::single_communicator());
    const Words words(tokens, tokens, 0);
    double sum = 0;
    for (std::int64_t s = 0; s < tokens.sequences; ++s)
      for (std::int64_t t = 0; t + 1 < positions; ++t)
        sum += std::log(2.0) - loss(beta, words.at(s, t + 1, Bit::answer), mechanism.intact(words, s, t));
    silence = sum / static_cast<double>(tokens.sequences * (positions - 1));
  }

  /// Those whose `zero` is shown to do something cost what silence costs; all others are shown to do nothing.
  void expect_needed(const std::vector<std::string>& needed) const {
    for (std::size_t w = 1; w < names.size(); ++w) {
      const analysis::WriterEffect& zero = writers.zero[w];
      const bool is_needed = std::count(needed.begin(), needed.end(), names[w]) > 0;
      EXPECT_NEAR(zero.delta_nll.value, is_needed ? silence : 0, 1e-5) << names[w];
      EXPECT_EQ(zero.p_adjusted < 0.05, is_needed) << names[w];
      EXPECT_EQ(zero.p_equivalence_adjusted < 0.05, !is_needed) << names[w];
    }
  }
  std::size_t writer(const std::string& name) const {
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
  }

  std::vector<std::string> names;
  analysis::ProbeTokens tokens;
  analysis::Writers writers;
  double silence = 0;  // what saying nothing costs
};

TEST(PlantedWriters, TheWriterThatFetchesTheAnswerIsNeededAndOthersAreNot) {
  const Measured measured(fetched_answer());
  EXPECT_GT(measured.silence, 0.3);
  measured.expect_needed({"0.attn", "2.mlp"});
}

// A large mass, and nobody reads it.
TEST(PlantedWriters, AWriterWithMassThatNobodyReadsIsShownToDoNothing) {
  const Measured measured(idle_mass(beta));
  measured.expect_needed({"2.mlp"});
  const std::size_t mlp = 5, writers = measured.names.size();
  EXPECT_GT(measured.writers.contribution[mlp * writers + measured.writer("0.attn")].ci.lower, 0.5);
  // Its own bits go with the embedding's mean; what is left says the same everywhere.
  EXPECT_GT(measured.writers.mean[0].delta_nll.ci.lower, 0.3);
  EXPECT_LT(measured.writers.mean[0].p_adjusted, 0.05);
}

}  // namespace
}  // namespace routescope::planted
