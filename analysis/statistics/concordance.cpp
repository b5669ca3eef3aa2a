#include "analysis/statistics/concordance.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace routescope::analysis {
namespace {

// The sums of exact_p() are rounded to some 1e-16.
constexpr double least_p = 1e-12;

int sign(double value) {
  return (value > 0) - (value < 0);
}

/// Items of one group: their values and means.
struct Group {
  std::vector<const std::vector<double>*> a, b;
  std::vector<double> mean_a, mean_b;

  std::size_t size() const { return a.size(); }
};

/// Concordant pairs less discordant ones. The place of item i's b is order[i].
std::int64_t agreement(const Group& group, std::span<const std::size_t> order) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < group.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      sum += sign(group.mean_a[i] - group.mean_a[j]) * sign(group.mean_b[order[i]] - group.mean_b[order[j]]);
  }
  return sum;
}

std::vector<std::size_t> identity(std::size_t n) {
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  return order;
}

bool has_ties(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return std::adjacent_find(values.begin(), values.end()) != values.end();
}

/// The chance that |pairs - 2 discordant| >= |observed| if every order is as likely in each group. Item k of a group,
/// put among the k - 1 before it, makes 0 to k - 1 discordant pairs, each with chance 1 / k, independently.
double exact_p(std::span<const Group> groups, std::int64_t pairs, std::int64_t observed) {
  std::vector<double> chance(static_cast<std::size_t>(pairs) + 1, 0.0), next(chance.size());
  chance[0] = 1;
  for (const Group& group : groups) {
    for (std::size_t k = 2; k <= group.size(); ++k) {
      double window = 0;
      for (std::size_t discordant = 0; discordant < chance.size(); ++discordant) {
        window += chance[discordant];
        if (discordant >= k) window -= chance[discordant - k];
        next[discordant] = window / static_cast<double>(k);
      }
      chance.swap(next);
    }
  }
  double p = 0;
  for (std::int64_t discordant = 0; discordant <= pairs; ++discordant) {
    if (std::abs(pairs - 2 * discordant) >= std::abs(observed)) p += chance[static_cast<std::size_t>(discordant)];
  }
  return std::clamp(p, least_p, 1.0);
}

double random_p(std::span<const Group> groups, std::int64_t observed, const RandomKey& key) {
  std::mt19937_64 random = generator(key, Use::permute);
  std::vector<std::vector<std::size_t>> orders;
  for (const Group& group : groups) orders.push_back(identity(group.size()));
  int extreme = 1;
  for (int number = 0; number < permutations; ++number) {
    std::int64_t sum = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      std::vector<std::size_t>& order = orders[g];
      for (std::size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[below(static_cast<std::uint32_t>(random()), i)]);
      sum += agreement(groups[g], order);
    }
    extreme += std::abs(sum) >= std::abs(observed);
  }
  return extreme / (permutations + 1.0);
}

/// The sign of the mean of one - other if a test shows it, else 0.
int known_sign(const std::vector<double>& one, const std::vector<double>& other, double level) {
  std::vector<double> difference(one.size());
  for (std::size_t i = 0; i < one.size(); ++i) difference[i] = one[i] - other[i];
  if (mean(difference) < 0) {
    for (double& value : difference) value = -value;
    return p_above(difference) < 0.5 * level ? -1 : 0;
  }
  return p_above(difference) < 0.5 * level ? 1 : 0;
}

Interval interval_of(std::span<const Group> groups, std::int64_t pairs) {
  const auto n = static_cast<double>(pairs);
  const double level = (1 - interval_level) / (2 * n);
  std::int64_t concordant = 0, discordant = 0;
  for (const Group& group : groups) {
    for (std::size_t i = 0; i < group.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const int in_a = known_sign(*group.a[i], *group.a[j], level);
        const int both = in_a == 0 ? 0 : in_a * known_sign(*group.b[i], *group.b[j], level);
        concordant += both > 0;
        discordant += both < 0;
      }
    }
  }
  return {(2 * static_cast<double>(concordant) - n) / n, (n - 2 * static_cast<double>(discordant)) / n};
}

}  // namespace

Concordance concordance(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b,
                        std::span<const std::int64_t> groups, const RandomKey& key) {
  if (a.size() != b.size() || (!groups.empty() && groups.size() != a.size()))
    throw std::invalid_argument("two orders of different items");
  std::map<std::int64_t, Group> by_label;
  std::size_t units = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != a[0].size() || b[i].size() != a[0].size())
      throw std::invalid_argument("items with different numbers of units");
    const auto finite = [](double v) { return std::isfinite(v); };
    if (!std::all_of(a[i].begin(), a[i].end(), finite) || !std::all_of(b[i].begin(), b[i].end(), finite)) continue;
    units = a[i].size();
    Group& group = by_label[groups.empty() ? 0 : groups[i]];
    group.a.push_back(&a[i]);
    group.b.push_back(&b[i]);
    group.mean_a.push_back(mean(a[i]));
    group.mean_b.push_back(mean(b[i]));
  }
  Concordance out;
  std::vector<Group> all;
  std::int64_t observed = 0;
  bool ties = false;
  for (auto& [label, group] : by_label) {
    out.pairs += std::ssize(group.a) * (std::ssize(group.a) - 1) / 2;
    observed += agreement(group, identity(group.size()));
    ties = ties || has_ties(group.mean_a) || has_ties(group.mean_b);
    all.push_back(std::move(group));
  }
  if (out.pairs == 0 || units == 0) return out;
  out.tau = static_cast<double>(observed) / static_cast<double>(out.pairs);
  out.p = ties ? random_p(all, observed, key) : exact_p(all, out.pairs, observed);
  if (units > 1) out.ci = interval_of(all, out.pairs);
  return out;
}

}  // namespace routescope::analysis
