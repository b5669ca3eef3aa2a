// Games whose values are known by hand, and verdicts on made-up losses with their error rates.
#include "analysis/coalitions/coalition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "analysis/coalitions/measure_coalitions.h"

namespace routescope::analysis {
namespace {

TEST(Shapley, OfGamesKnownByHand) {
  // Gloves: player 0 has a left one, 1 and 2 a right one each; a pair is worth 1.
  std::vector<double> gloves(8, 0.0);
  for (Coalition s : {0b011U, 0b101U, 0b111U}) gloves[s] = 1;
  const std::vector<double> shares = shapley_values(gloves);
  EXPECT_NEAR(shares[0], 2.0 / 3, 1e-12);
  EXPECT_NEAR(shares[1], 1.0 / 6, 1e-12);
  EXPECT_NEAR(shares[2], 1.0 / 6, 1e-12);
  // An additive game: each its own.
  std::vector<double> additive(16);
  for (Coalition s = 0; s < 16; ++s)
    for (int i = 0; i < 4; ++i) additive[s] += (s >> i & 1) ? i + 1.0 : 0;
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(shapley_values(additive)[static_cast<std::size_t>(i)], i + 1.0, 1e-12);
  EXPECT_THROW(shapley_values(std::vector<double>(6)), std::invalid_argument);
}

TEST(Shapley, SumToTheValueOfAllAndAreTheMeanOverOrders) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  std::vector<double> v(16);
  for (double& value : v) value = normal(random);
  const std::vector<double> exact = shapley_values(v);
  EXPECT_NEAR(exact[0] + exact[1] + exact[2] + exact[3], v[15] - v[0], 1e-12);
  std::vector<std::size_t> order{0, 1, 2, 3};
  std::vector<double> sum(4, 0.0);
  int orders = 0;
  do {
    std::vector<double> along{v[0]};
    Coalition s = 0;
    for (std::size_t i : order) along.push_back(v[s |= Coalition{1} << i]);
    const std::vector<double> own = marginals(order, along);
    for (std::size_t i = 0; i < 4; ++i) sum[i] += own[i];
    EXPECT_NEAR(own[0] + own[1] + own[2] + own[3], v[15] - v[0], 1e-12);
    ++orders;
  } while (std::next_permutation(order.begin(), order.end()));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(sum[i] / orders, exact[i], 1e-12);
}

TEST(Players, AreFamiliesOfASublayerKind) {
  for (std::size_t slice = 0; slice < num_slices; ++slice) {
    const std::string name = slice_name(slice);
    EXPECT_EQ(name.substr(0, name.rfind('.')), player_name(player_of(slice)));
  }
}

/// 500 repetitions of 32 documents and four sets: set 0 does nothing alone; beside set 1 it does `beside` on average.
struct Rates {
  int idle = 0, redundant = 0, undecided = 0, none = 0, partner_is_1 = 0;
  Rates(double beside, double noise) {
    std::mt19937_64 random(7);
    std::normal_distribution<double> normal;
    for (int repetition = 0; repetition < 500; ++repetition) {
      std::vector<std::vector<double>> alone(4, std::vector<double>(32)), pairs(6, std::vector<double>(32));
      for (std::size_t d = 0; d < 32; ++d) {
        alone[0][d] = noise * normal(random);
        for (std::size_t s = 1; s < 4; ++s) alone[s][d] = 0.5 + 0.1 * normal(random);
        std::size_t pair = 0;
        for (const auto& [a, b] : pairs_of(4)) {
          pairs[pair][d] = alone[a][d] + alone[b][d];
          if (a == 0) pairs[pair][d] += noise * normal(random) + (b == 1 ? beside : 0);
          ++pair;
        }
      }
      const Company company = in_company({0}, alone, pairs, 0.05);
      const InCompany verdict = company.verdict[0];
      (verdict == InCompany::idle        ? idle
       : verdict == InCompany::redundant ? redundant
       : verdict == InCompany::undecided ? undecided
                                         : none)++;
      partner_is_1 += company.partner[0] == 1;
    }
    std::printf("beside %.3f, noise %.3f: idle %.1f %%, redundant %.1f %%, undecided %.1f %%, none %.1f %%\n", beside,
                noise, idle / 5.0, redundant / 5.0, undecided / 5.0, none / 5.0);
  }
};

TEST(InCompanyRates, HoldWhatTheyPromise) {
  const double most = 0.05 + 2.33 * std::sqrt(0.05 * 0.95 / 500);
  const Rates idle(0, 0.01), covered(0.3, 0.01), on_margin(0.05, 0.02);
  EXPECT_GE(idle.idle, 450);
  EXPECT_LE(idle.redundant, most * 500);
  EXPECT_GE(covered.redundant, 450);
  EXPECT_EQ(covered.partner_is_1, covered.redundant);
  EXPECT_LE(covered.idle, most * 500);
  // What lies on the margin is neither shown to be within it nor to be above it.
  EXPECT_LE(on_margin.idle, most * 500);
  EXPECT_LE(on_margin.redundant, most * 500);
}

TEST(InCompany, IsSilentWhereTooLittleIsKnown) {
  // Exactly nothing, everywhere: ten documents cannot show that more than 80 % of documents are so, and without a
  // margin nothing counts as nothing.
  for (const auto& [documents, margin] : {std::pair(std::size_t{10}, 0.05), std::pair(std::size_t{40}, 0.0)}) {
    const std::vector<std::vector<double>> alone(3, std::vector<double>(documents, 0.0)),
        pairs(3, std::vector<double>(documents, 0.0));
    for (InCompany verdict : in_company({0, 1, 2}, alone, pairs, margin).verdict) EXPECT_EQ(verdict, InCompany::none);
  }
  const std::vector<std::vector<double>> nothing(3, std::vector<double>(40, 0.0));
  EXPECT_EQ(in_company({0, 2}, nothing, nothing, 0.05).verdict,
            (std::vector<InCompany>{InCompany::idle, InCompany::none, InCompany::idle}));
}

}  // namespace
}  // namespace routescope::analysis
