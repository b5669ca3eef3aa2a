#include "analysis/routes/controls.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace routescope::analysis {
namespace {

constexpr double rounding = 1e-6;        // what holds less than this holds nothing
constexpr std::size_t most_listed = 10;  // sources of a read whose choices are listed: 2^10 sets of them
constexpr int most_tries = 100;          // to draw a choice that leaves enough, where they are not listed

/// What a control does in one read, and its chance.
struct Choice {
  std::vector<GatedRoute> routes;
  double chance = 1;
};

/// One read of a set: its sources with what they hold, and how much a control has to take.
struct ReadOfSet {
  int read = 0;
  std::vector<GatedRoute> set;
  std::vector<int> columns;  // that hold something
  std::vector<double> held;  // [columns]
  double target = 0;
  std::size_t sources = 0;
  bool removes = false;

  /// The sources `order`, which begins with all that are whole, the last being taken up to the target. Empty if too
  /// little would be left.
  std::vector<GatedRoute> take(std::span<const std::size_t> order) const {
    std::vector<GatedRoute> routes;
    double left = target;
    for (std::size_t i : order) {
      if (left <= rounding) break;
      routes.push_back({read, columns[i], left > held[i] - rounding ? 1.0 : left / held[i]});
      left -= held[i];
    }
    const bool last_in_part = routes.back().share < 1;
    const std::size_t survivors = sources - routes.size() + (last_in_part ? 1 : 0);
    if (removes && (survivors == 0 || (survivors == 1 && last_in_part))) return {};
    std::sort(routes.begin(), routes.end(), [](const auto& a, const auto& b) { return a.column < b.column; });
    return routes;
  }
  bool is_set(const std::vector<GatedRoute>& routes) const {
    return std::equal(routes.begin(), routes.end(), set.begin(), set.end(),
                      [](const auto& a, const auto& b) { return a.column == b.column && a.share == b.share; });
  }
  std::vector<Choice> as_in_set() const { return {{set, 1}}; }
  bool is_given() const { return set.size() == sources || !(target > rounding); }
};

/// All choices of a read. A random order begins with the sources of a set S, of n, with chance 1 / C(n, |S|).
std::vector<Choice> list_choices(const ReadOfSet& read) {
  const std::size_t n = read.columns.size();
  std::vector<Choice> choices;
  double chances = 0, sets_of_size = 1;
  std::vector<double> chance_of_size;
  for (std::size_t size = 0; size <= n; ++size) {
    chance_of_size.push_back(1 / sets_of_size);
    sets_of_size *= static_cast<double>(n - size) / static_cast<double>(size + 1);
  }
  for (std::uint32_t members = 0; members < (1U << n); ++members) {
    std::vector<std::size_t> order;
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!(members >> i & 1U)) continue;
      order.push_back(i);
      sum += read.held[i];
    }
    if (sum > read.target - rounding) continue;
    const std::size_t size = order.size();
    for (std::size_t last = 0; last < n; ++last) {
      if ((members >> last & 1U) || sum + read.held[last] < read.target - rounding) continue;
      order.resize(size);
      order.push_back(last);
      std::vector<GatedRoute> routes = read.take(order);
      if (routes.empty()) continue;
      const double chance = chance_of_size[size] / static_cast<double>(n - size);
      chances += chance;
      const auto same = std::find_if(choices.begin(), choices.end(), [&](const Choice& other) {
        return std::equal(routes.begin(), routes.end(), other.routes.begin(), other.routes.end(),
                          [](const auto& a, const auto& b) { return a.column == b.column && a.share == b.share; });
      });
      if (same == choices.end())
        choices.push_back({std::move(routes), chance});
      else
        same->chance += chance;
    }
  }
  for (Choice& choice : choices) choice.chance /= chances;
  return choices.empty() ? read.as_in_set() : choices;
}

double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

/// A choice of a read with too many to list.
std::vector<GatedRoute> draw_choice(const ReadOfSet& read, std::mt19937_64& random) {
  std::vector<std::size_t> order(read.columns.size());
  for (int attempt = 0; attempt < most_tries; ++attempt) {
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (std::size_t i = order.size() - 1; i > 0; --i)
      std::swap(order[i], order[static_cast<std::size_t>(uniform(random) * static_cast<double>(i + 1))]);
    std::vector<GatedRoute> routes = read.take(order);
    if (!routes.empty()) return routes;
  }
  return read.set;
}

std::vector<ReadOfSet> reads_of(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set,
                                std::span<const double> held) {
  std::vector<ReadOfSet> reads;
  const auto held_by = [&](int read, int column) {
    return held[static_cast<std::size_t>(read) * plan.columns.size() + static_cast<std::size_t>(column)];
  };
  for (const GatedRoute& route : whole(set)) {
    if (reads.empty() || reads.back().read != route.read) {
      ReadOfSet& read = reads.emplace_back();
      read.read = route.read;
      read.removes = ablation == Ablation::mask || ablation == Ablation::zero;
      const std::vector<int>& columns = plan.reads[static_cast<std::size_t>(route.read)].columns;
      read.sources = columns.size();
      for (int column : columns) {
        if (!(held_by(route.read, column) > rounding)) continue;
        read.columns.push_back(column);
        read.held.push_back(held_by(route.read, column));
      }
    }
    reads.back().set.push_back(route);
    reads.back().target += held_by(route.read, route.column);
  }
  return reads;
}

}  // namespace

Controls make_controls(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set,
                       std::span<const double> held, std::uint64_t seed, int set_index, Matched matched, int count) {
  const std::vector<ReadOfSet> reads = reads_of(plan, ablation, set, held);
  const std::vector<int> changed = changed_reads(plan, ablation, whole(set));
  std::vector<std::vector<Choice>> choices;  // [read]; none: too many to list
  double combinations = 1, free = 0;
  for (const ReadOfSet& read : reads) {
    const bool listed = read.is_given() || read.columns.size() <= most_listed;
    choices.push_back(read.is_given() ? read.as_in_set() : listed ? list_choices(read) : std::vector<Choice>{});
    combinations *= listed ? static_cast<double>(choices.back().size()) : INFINITY;
    const bool only_set = choices.back().size() == 1 && read.is_set(choices.back().front().routes);
    if (std::binary_search(changed.begin(), changed.end(), read.read) && !only_set) ++free;
  }
  Controls out;
  out.coverage = free / static_cast<double>(changed.size());  // 0 / 0 is NaN
  out.enumerated = combinations <= static_cast<double>(std::max<std::size_t>(most_enumerated_controls, 1));
  if (out.enumerated) {
    out.draws.push_back({});
    for (const std::vector<Choice>& of_read : choices) {
      std::vector<Control> longer;
      for (const Control& begun : out.draws) {
        for (const Choice& choice : of_read) {
          Control& control = longer.emplace_back(begun);
          control.routes.insert(control.routes.end(), choice.routes.begin(), choice.routes.end());
          control.weight *= choice.chance;
        }
      }
      out.draws = std::move(longer);
    }
    return out;
  }
  // The standard fixes both seed_seq and mt19937_64 to the bit.
  std::seed_seq words{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(set_index), static_cast<std::uint32_t>(matched)};
  std::mt19937_64 random(words);
  for (int draw = 0; draw < count; ++draw) {
    Control& control = out.draws.emplace_back();
    control.weight = 1 / static_cast<double>(count);
    for (std::size_t i = 0; i < reads.size(); ++i) {
      std::vector<GatedRoute> routes;
      if (choices[i].empty()) {
        routes = draw_choice(reads[i], random);
      } else {
        double left = uniform(random);
        std::size_t chosen = 0;
        while (chosen + 1 < choices[i].size() && left >= choices[i][chosen].chance) left -= choices[i][chosen++].chance;
        routes = choices[i][chosen].routes;
      }
      control.routes.insert(control.routes.end(), routes.begin(), routes.end());
    }
  }
  return out;
}

}  // namespace routescope::analysis
