#include "analysis/routes/route_sets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "analysis/routes/slices.h"
#include "data/base/error.h"

namespace routescope::analysis {
namespace {

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? std::string{} : text.substr(begin, end - begin + 1);
}

int read_named(const std::string& name, const std::string& text, const model::ReadPlan& plan) {
  for (int r = 0; r < plan.num_routed(); ++r) {
    if (plan.reads[static_cast<std::size_t>(r)].name == name) return r;
  }
  throw data::UsageError(
      "set of routes '{}': found read '{}', expected {} to {}, a range of them, attn, mlp (or one "
      "depth of them: attn.late) or all",
      text, name, plan.reads.front().name, plan.reads[static_cast<std::size_t>(plan.num_routed() - 1)].name);
}

std::vector<int> parse_reads(const std::string& reads, const std::string& text, const model::ReadPlan& plan) {
  std::vector<int> out;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const std::string sublayer = model::to_string(plan.reads[static_cast<std::size_t>(r)].sublayer);
    const bool layered = plan.reads[static_cast<std::size_t>(r)].sublayer != model::Sublayer::final;
    if (reads == "all" || (layered && (reads == sublayer || reads == sublayer + "." + model::to_string(plan.depth(r)))))
      out.push_back(r);
  }
  if (!out.empty()) return out;
  const std::size_t dash = reads.find('-');
  const int first = read_named(reads.substr(0, dash), text, plan);
  const int last = dash == std::string::npos ? first : read_named(reads.substr(dash + 1), text, plan);
  if (first > last) throw data::UsageError("set of routes '{}': the range ends before it starts", text);
  for (int r = first; r <= last; ++r) out.push_back(r);
  return out;
}

/// Of the columns of a read the history that was completed last; -1: none.
int newest(const model::Read& read, const model::ReadPlan& plan) {
  int found = -1;
  for (int column : read.columns) {
    if (plan.family(column) == model::Family::history) found = std::max(found, column);
  }
  return found;
}

/// What SOURCES mean.
struct Sources {
  std::vector<bool> columns;  // whether each is meant in every read
  bool newest = false, older = false;

  bool has(const model::Read& read, int column, const model::ReadPlan& plan) const {
    const bool is_newest = column == analysis::newest(read, plan);
    return columns[static_cast<std::size_t>(column)] || (newest && is_newest) ||
           (older && !is_newest && plan.family(column) == model::Family::history);
  }
};

Sources parse_sources(const std::string& sources, const std::string& text, const model::ReadPlan& plan) {
  Sources wanted{std::vector<bool>(plan.columns.size(), false)};
  for (std::size_t begin = 0; begin <= sources.size();) {
    const std::size_t end = std::min(sources.find(',', begin), sources.size());
    const std::string source = trimmed(sources.substr(begin, end - begin));
    bool known = source == "newest" || source == "older";
    wanted.newest = wanted.newest || source == "newest";
    wanted.older = wanted.older || source == "older";
    for (int c = 0; c < plan.num_columns(); ++c) {
      if (plan.columns[static_cast<std::size_t>(c)] != source && model::to_string(plan.family(c)) != source) continue;
      wanted.columns[static_cast<std::size_t>(c)] = known = true;
    }
    if (!known) {
      throw data::UsageError(
          "set of routes '{}': found source '{}', expected some of {} (history: every block; newest: the last of them "
          "in each read; older: the others)",
          text, source, fmt::join(plan.columns, ", "));
    }
    begin = end + 1;
  }
  return wanted;
}

}  // namespace

void expect_reads(const model::ReadPlan& plan) {
  if (plan.num_routed() > 0) return;
  throw data::Error("the model's residual stream is '{}': it has no reads to probe, expected a routed model",
                    model::to_string(model::Residual::standard));
}

std::vector<RouteSet> slice_sets(const model::ReadPlan& plan) {
  std::vector<RouteSet> sets;
  for (const Slice& slice : make_slices(plan)) sets.push_back({slice.name(), slice.reads, slice.routes});
  return sets;
}

RouteSet parse_route_set(const std::string& given, const model::ReadPlan& plan) {
  expect_reads(plan);
  const std::string text = trimmed(given);
  for (RouteSet& slice : slice_sets(plan)) {
    if (slice.name == text) return std::move(slice);
  }
  const std::size_t colon = text.find(':');
  RouteSet set{text, parse_reads(trimmed(text.substr(0, colon)), text, plan), {}};
  const Sources wanted = colon == std::string::npos ? Sources{std::vector<bool>(plan.columns.size(), true)}
                                                    : parse_sources(text.substr(colon + 1), text, plan);
  for (int r : set.reads) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    for (int column : read.columns) {
      if (wanted.has(read, column, plan)) set.routes.emplace_back(r, column);
    }
  }
  if (set.routes.empty()) throw data::UsageError("set of routes '{}': none of its reads has such a source", text);
  return set;
}

std::vector<RouteSet> route_sets(std::span<const std::string> names, const model::ReadPlan& plan) {
  if (names.empty()) return plan.num_routed() == 0 ? std::vector<RouteSet>{} : slice_sets(plan);
  expect_reads(plan);
  std::vector<RouteSet> asked, sets;
  for (const std::string& name : names) {
    if (trimmed(name) != "routes") {
      asked.push_back(parse_route_set(name, plan));
      continue;
    }
    for (int r = 0; r < plan.num_routed(); ++r) {
      const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
      for (int column : read.columns)
        asked.push_back({read.name + ":" + plan.columns[static_cast<std::size_t>(column)], {r}, {{r, column}}});
    }
  }
  for (RouteSet& set : asked) {
    for (const RouteSet& other : sets) {
      if (other.name == set.name) throw data::UsageError("set of routes '{}': is named twice", set.name);
      if (!set.routes.empty() && other.routes == set.routes)
        throw data::UsageError("set of routes '{}': has the same routes as '{}', expected each set once", set.name,
                               other.name);
    }
    sets.push_back(std::move(set));
  }
  return sets;
}

std::vector<double> set_masses(std::span<const RouteSet> sets, std::span<const double> alpha_mean, int columns) {
  std::vector<double> masses;
  masses.reserve(sets.size());
  for (const RouteSet& set : sets) {
    double sum = 0;
    for (const auto& [read, column] : set.routes) sum += alpha_mean[static_cast<std::size_t>(read * columns + column)];
    masses.push_back(set.reads.empty() ? std::numeric_limits<double>::quiet_NaN()
                                       : sum / static_cast<double>(set.reads.size()));
  }
  return masses;
}

}  // namespace routescope::analysis
