#include "analysis/routes/ablation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

#include "data/base/error.h"
#include "kernels/ops.h"

namespace routescope::analysis {
namespace {

struct Named {
  Ablation ablation;
  const char* name;
  const char* brief;
  const char* what;
};

constexpr std::array<Named, 6> named = {{
    {Ablation::mask, "mask", "out of the softmax",
     "mask: logit = -inf on the set's routes, softmax over the rest; a read that would keep no source is left alone"},
    {Ablation::zero, "zero", "term dropped",
     "zero: the term alpha_i v_i of each of the set's routes is removed, the rest unchanged"},
    {Ablation::mean, "mean", "mean value",
     "mean: v_i of each of the set's routes is replaced by its mean over all probed tokens under the intact model, "
     "alpha kept"},
    {Ablation::resample, "resample", "another token's weight",
     "resample: alpha_i of each of the set's routes is that of another token of the same sequence, drawn uniformly; "
     "not renormalised"},
    {Ablation::freeze, "freeze", "mean weight",
     "freeze: alpha_i of each of the set's routes is its mean over all probed tokens under the intact model; not "
     "renormalised"},
    {Ablation::patch, "patch", "weight under --patch-from",
     "patch: alpha_i of each of the set's routes is that of the same position of the aligned sequence under the intact "
     "model; not renormalised"},
}};

const Named& entry(Ablation ablation) {
  return *std::find_if(named.begin(), named.end(), [&](const Named& one) { return one.ablation == ablation; });
}

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Uniform over [0, n); the bias, below n / 2^32, is far under anything that is measured.
std::int64_t below(std::uint64_t bits, std::int64_t n) {
  return static_cast<std::int64_t>(((bits >> 32) * static_cast<std::uint64_t>(n)) >> 32);
}

// Steele, Lea & Flood 2014: every bit of the result depends on every bit of x.
std::uint64_t splitmix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// One route within its read.
struct Gate {
  std::size_t source;  // in the order of the read's columns
  double share;
  double mean_alpha = 0;  // `freeze`
};

/// `routes` of one read at a time: body(read, its routes).
template <class Body>
void for_each_read(std::span<const GatedRoute> routes, const Body& body) {
  for (std::size_t begin = 0; begin < routes.size();) {
    std::size_t end = begin;
    while (end < routes.size() && routes[end].read == routes[begin].read) ++end;
    body(routes[begin].read, routes.subspan(begin, end - begin));
    begin = end;
  }
}

bool can_change(const model::ReadPlan& plan, Ablation ablation, int read, std::span<const GatedRoute> routes) {
  const std::size_t sources = plan.reads[index(read)].columns.size();
  switch (ablation) {
    case Ablation::mask:
      return routes.size() < sources ||
             std::any_of(routes.begin(), routes.end(), [](const GatedRoute& route) { return route.share < 1; });
    case Ablation::zero:
    case Ablation::mean:
      return true;
    case Ablation::resample:
    case Ablation::freeze:
    case Ablation::patch:
      return sources > 1;
  }
  throw std::logic_error("no such ablation");
}

using Edit = std::function<void(std::span<const double>, std::span<double>)>;

/// Edits that put another weight in an old one's place: edited_i = (1 - g) alpha_i + g other(token, gate, alpha).
template <class Other>
Edit reweigh(std::size_t sources, std::vector<Gate> gates, Other other) {
  return [sources, gates = std::move(gates), other = std::move(other)](std::span<const double> alpha,
                                                                       std::span<double> edited) {
    std::copy(alpha.begin(), alpha.end(), edited.begin());
    for (std::size_t token = 0; token < alpha.size() / sources; ++token) {
      for (const Gate& gate : gates) {
        double& weight = edited[token * sources + gate.source];
        weight = (1 - gate.share) * weight + gate.share * other(token, gate, alpha);
      }
    }
  };
}

/// The weight of a gated source goes to its mean, one of the values beside the read's own.
Edit move_to_extras(std::size_t sources, std::vector<Gate> gates) {
  return [sources, gates = std::move(gates)](std::span<const double> alpha, std::span<double> edited) {
    const std::size_t width = sources + gates.size();
    for (std::size_t token = 0; token < alpha.size() / sources; ++token) {
      for (std::size_t i = 0; i < sources; ++i) edited[token * width + i] = alpha[token * sources + i];
      for (std::size_t extra = 0; extra < gates.size(); ++extra) {
        const Gate& gate = gates[extra];
        const double weight = alpha[token * sources + gate.source];
        edited[token * width + gate.source] = (1 - gate.share) * weight;
        edited[token * width + sources + extra] = gate.share * weight;
      }
    }
  };
}

/// [sequences * positions] the token, counted likewise, that each takes its weights from.
std::shared_ptr<const std::vector<std::size_t>> resample_donors(const BatchPlace& place) {
  auto donors = std::make_shared<std::vector<std::size_t>>();
  for (std::int64_t q = 0; q < place.sequences; ++q) {
    for (std::int64_t t = 0; t < place.positions; ++t) {
      donors->push_back(
          index(q * place.positions + resample_donor(place.seed, place.first_sequence + q, t, place.positions)));
    }
  }
  return donors;
}

void mask_routes(model::RoutingIntervention& intervention, const model::ReadPlan& plan,
                 std::span<const GatedRoute> routes) {
  if (intervention.logit_bias.empty()) {
    intervention.logit_bias.assign(index(plan.num_routed()), std::vector<double>(plan.columns.size(), 0.0));
  }
  for (const GatedRoute& route : routes)
    intervention.logit_bias[index(route.read)][index(route.column)] = std::log1p(-route.share);
}

void expect_reference(bool there, const char* what) {
  if (!there) throw std::invalid_argument(std::string("prepare_ablation: needs ") + what);
}

/// The means of a read's gated sources as tensors of the model, [d] each.
std::vector<kernels::Tensor> mean_values(const model::Model& model, const model::Read& read, int r,
                                         std::span<const Gate> gates, const Reference& reference,
                                         std::vector<kernels::OwnedTensor>& owned) {
  const model::ModelOptions& options = model.options();
  const std::int64_t d = model.config().hidden_size;
  std::vector<double> values;
  for (const Gate& gate : gates) {
    const int source = gate.source < read.sources.size() ? read.sources[gate.source] : r;
    const std::vector<double>& value = reference.source_mean.at(index(source));
    values.insert(values.end(), value.begin(), value.end());
  }
  const auto count = static_cast<std::int64_t>(gates.size());
  const kernels::Tensor all =
      owned.emplace_back(options.activations(), options.device, std::initializer_list<std::int64_t>{count, d}).tensor;
  kernels::cast(all, kernels::Tensor(values.data(), kernels::DType::f64, kernels::Device::cpu, {count, d}),
                kernels::Stream{.device = options.device});
  std::vector<kernels::Tensor> extras;
  for (std::int64_t i = 0; i < count; ++i) extras.push_back(all.rows(i, i + 1).view({d}));
  return extras;
}

}  // namespace

std::string to_string(Ablation ablation) {
  return entry(ablation).name;
}

Ablation ablation_from_string(const std::string& text) {
  std::string known;
  for (const Named& one : named) {
    if (text == one.name) return one.ablation;
    known += std::string(known.empty() ? "" : ", ") + one.name;
  }
  throw data::UsageError("ablation: found '{}', expected one of {}", text, known);
}

std::string describe(Ablation ablation) {
  return entry(ablation).what;
}

std::string describe_briefly(Ablation ablation) {
  return entry(ablation).brief;
}

std::vector<Ablation> all_ablations() {
  std::vector<Ablation> all;
  for (const Named& one : named) all.push_back(one.ablation);
  return all;
}

std::int64_t resample_donor(std::uint64_t seed, std::int64_t sequence, std::int64_t position, std::int64_t positions) {
  const std::uint64_t key =
      splitmix(splitmix(splitmix(seed) ^ static_cast<std::uint64_t>(sequence)) ^ static_cast<std::uint64_t>(position));
  const std::int64_t other = below(key, positions - 1);
  return other < position ? other : other + 1;
}

std::vector<int> changed_reads(const model::ReadPlan& plan, Ablation ablation, std::span<const GatedRoute> routes) {
  std::vector<int> reads;
  for_each_read(routes, [&](int read, std::span<const GatedRoute> of_read) {
    if (can_change(plan, ablation, read, of_read)) reads.push_back(read);
  });
  return reads;
}

double coverage(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set) {
  if (set.reads.empty()) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(changed_reads(plan, ablation, whole(set)).size()) / static_cast<double>(set.reads.size());
}

std::vector<GatedRoute> whole(const RouteSet& set) {
  std::vector<GatedRoute> routes;
  for (const auto& [read, column] : set.routes) routes.push_back({read, column, 1.0});
  return routes;
}

void expect_room_for_means(const model::ReadPlan& plan, kernels::Device device, Ablation ablation,
                           const std::string& set, std::span<const GatedRoute> routes) {
  if (device != kernels::Device::cuda || ablation != Ablation::mean) return;
  for_each_read(routes, [&](int r, std::span<const GatedRoute> of_read) {
    const model::Read& read = plan.reads[index(r)];
    if (read.sources.size() + of_read.size() <= most_cuda_sources) return;
    throw data::Error(
        "set of routes '{}', ablation {}: read {}: found {} completed sources and {} means, expected at most {} "
        "together on CUDA",
        set, to_string(ablation), read.name, read.sources.size(), of_read.size(), most_cuda_sources);
  });
}

PreparedAblation prepare_ablation(const model::Model& model, Ablation ablation, std::span<const GatedRoute> routes,
                                  const Reference& reference, const BatchPlace& place) {
  const model::ReadPlan& plan = model.plan();
  PreparedAblation out;
  const auto donors = ablation == Ablation::resample ? resample_donors(place) : nullptr;
  if (ablation == Ablation::freeze) expect_reference(!reference.alpha_mean.empty(), "the mean weights");
  if (ablation == Ablation::mean) expect_reference(!reference.source_mean.empty(), "the mean of every source");
  if (ablation == Ablation::patch) expect_reference(!place.donor_alpha.empty(), "the weights of aligned sequences");
  for_each_read(routes, [&](int r, std::span<const GatedRoute> of_read) {
    if (!can_change(plan, ablation, r, of_read)) return;
    out.changed_reads.push_back(r);
    if (ablation == Ablation::mask) return mask_routes(out.intervention, plan, of_read);
    const model::Read& read = plan.reads[index(r)];
    const std::size_t sources = read.columns.size();
    std::vector<Gate> gates;
    for (const GatedRoute& route : of_read) {
      const auto at = std::find(read.columns.begin(), read.columns.end(), route.column);
      if (at == read.columns.end()) throw std::invalid_argument("prepare_ablation: " + read.name + " lacks a source");
      Gate& gate = gates.emplace_back(Gate{static_cast<std::size_t>(at - read.columns.begin()), route.share});
      if (ablation == Ablation::freeze)
        gate.mean_alpha = reference.alpha_mean.at(index(r * plan.num_columns() + route.column));
    }
    model::ReadEdit& edit = out.intervention.edits[r];
    switch (ablation) {
      case Ablation::mask:
        break;
      case Ablation::zero:
        edit.alpha =
            reweigh(sources, std::move(gates), [](std::size_t, const Gate&, std::span<const double>) { return 0.0; });
        break;
      case Ablation::mean:
        edit.extra = mean_values(model, read, r, gates, reference, out.owned);
        edit.alpha = move_to_extras(sources, std::move(gates));
        break;
      case Ablation::resample:
        edit.alpha = reweigh(sources, std::move(gates),
                             [donors, sources](std::size_t token, const Gate& gate, std::span<const double> alpha) {
                               return alpha[(*donors)[token] * sources + gate.source];
                             });
        break;
      case Ablation::freeze:
        edit.alpha = reweigh(sources, std::move(gates),
                             [](std::size_t, const Gate& gate, std::span<const double>) { return gate.mean_alpha; });
        break;
      case Ablation::patch:
        edit.alpha = reweigh(
            sources, std::move(gates),
            [donor = std::span<const double>(place.donor_alpha[index(r)]).subspan(index(place.donor_begin) * sources),
             sources](std::size_t token, const Gate& gate, std::span<const double>) {
              return donor[token * sources + gate.source];
            });
        break;
    }
  });
  return out;
}

}  // namespace routescope::analysis
