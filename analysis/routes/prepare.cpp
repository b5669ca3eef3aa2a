#include "analysis/routes/prepare.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "data/base/error.h"
#include "kernels/ops.h"

namespace routescope::analysis {
namespace {

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
  double mean = 0;  // Donor::mean: of the weight, or the logit of the mean value
};

using Edit = std::function<void(std::span<const double>, std::span<double>)>;

/// changed_i = (1 - g) was_i + g other(token, gate, was), of every gate and token; `was` and `changed` [tokens,
/// sources].
template <class Other>
void mix_in(std::span<const double> was, std::span<double> changed, std::size_t sources, std::span<const Gate> gates,
            const Other& other) {
  for (std::size_t token = 0; token < was.size() / sources; ++token) {
    for (const Gate& gate : gates) {
      const std::size_t at = token * sources + gate.source;
      changed[at] = (1 - gate.share) * was[at] + gate.share * other(token, gate, was);
    }
  }
}

/// The weight of a gated source goes to one of the values beside the read's own.
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
std::shared_ptr<const std::vector<std::int32_t>> resample_donors(const BatchPlace& place) {
  auto donors = std::make_shared<std::vector<std::int32_t>>();
  for (std::int64_t q = 0; q < place.sequences; ++q) {
    const std::int64_t length = place.lengths.empty() ? place.positions : place.lengths[index(q)];
    for (std::int64_t t = 0; t < place.positions; ++t) {
      const std::int64_t donor = t < length ? resample_donor(place.seed, place.first_sequence + q, t, length) : t;
      donors->push_back(static_cast<std::int32_t>(q * place.positions + donor));
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

/// The read whose partial a gated source is.
int partial_of(const model::Read& read, int r, const Gate& gate) {
  return gate.source < read.sources.size() ? read.sources[gate.source] : r;
}

/// The logit that a read gives to a value v: <w g, v> / rms(v) and its own bias on the source.
double logit_of(const model::Model& model, int r, const Gate& gate, std::span<const double> v) {
  const kernels::Stream stream{.device = model.options().device};
  const model::ReadWeights& weights = model.weights().reads[index(r)];
  const std::vector<double> w = kernels::host_values<double>(weights.query, stream),
                            g = kernels::host_values<double>(weights.key_gain, stream);
  double squares = 0, product = 0;
  for (std::size_t k = 0; k < v.size(); ++k) {
    squares += v[k] * v[k];
    product += w[k] * g[k] * v[k];
  }
  return product / std::sqrt(squares / static_cast<double>(v.size()) + model.config().rms_norm_eps) +
         model::own_logit_bias(model, r)[gate.source];
}

/// The means of a read's gated sources as tensors of the model, [d] each.
std::vector<model::ExtraValue> mean_values(const model::Model& model, const model::Read& read, int r,
                                           std::span<const Gate> gates, const Reference& reference,
                                           std::vector<kernels::OwnedTensor>& owned) {
  const model::ModelOptions& options = model.options();
  const std::int64_t d = model.config().hidden_size;
  std::vector<double> values;
  for (const Gate& gate : gates) {
    const std::vector<double>& value = reference.source_mean.at(index(partial_of(read, r, gate)));
    values.insert(values.end(), value.begin(), value.end());
  }
  const auto count = static_cast<std::int64_t>(gates.size());
  const kernels::Tensor all =
      owned.emplace_back(options.activations(), options.device, std::initializer_list<std::int64_t>{count, d}).tensor;
  kernels::cast(all, kernels::Tensor(values.data(), kernels::DType::f64, kernels::Device::cpu, {count, d}),
                kernels::Stream{.device = options.device});
  std::vector<model::ExtraValue> extras;
  for (std::int64_t i = 0; i < count; ++i) extras.push_back({all.rows(i, i + 1)});
  return extras;
}

/// One ablation of the reads of a set, one after another.
class Preparer {
 public:
  Preparer(const model::Model& model, Ablation ablation, const Reference& reference, const BatchPlace& place)
      : model_(model),
        plan_(model.plan()),
        ablation_(ablation),
        reference_(reference),
        place_(place),
        position_(donor_of(ablation) == Donor::position ? resample_donors(place) : nullptr) {
    const Part part = part_of(ablation);
    if (ablation == Ablation::freeze) expect(!reference.alpha_mean.empty(), "the mean weights");
    if (donor_of(ablation) == Donor::mean && part != Part::weight)
      expect(!reference.source_mean.empty(), "the mean of every source");
    if (donor_of(ablation) != Donor::text) return;
    const KeptPass none, &donors = place.donors ? *place.donors : none;
    expect(part != Part::weight || !donors.alpha.empty(), "the weights of aligned sequences");
    expect(!changes_keys(ablation) || !donors.logits.empty(), "the logits of aligned sequences");
    expect(!changes_values(ablation) || !donors.partial.empty(), "the sources of aligned sequences");
  }

  void change(int r, std::span<const GatedRoute> routes, PreparedAblation& out) const {
    if (ablation_ == Ablation::mask && !place_.frozen) return mask_routes(out.intervention, plan_, routes);
    const std::vector<Gate> gates = gates_of(r, routes);
    model::ReadEdit& edit = out.intervention.edits[r];
    if (place_.frozen || changes_keys(ablation_)) edit.logits = change_of_logits(r, gates);
    const std::size_t sources = plan_.reads[index(r)].columns.size();
    if (changes_values(ablation_)) {
      edit.extra = other_values(r, gates, out.owned);
      edit.alpha = move_to_extras(sources, gates);
    } else if (ablation_ != Ablation::mask && part_of(ablation_) == Part::weight) {
      edit.alpha = change_of_weights(r, sources, gates);
    }
  }

 private:
  static void expect(bool there, const char* what) {
    if (!there) throw std::invalid_argument(std::string("prepare_ablation: needs ") + what);
  }

  std::vector<Gate> gates_of(int r, std::span<const GatedRoute> routes) const {
    const model::Read& read = plan_.reads[index(r)];
    std::vector<Gate> gates;
    for (const GatedRoute& route : routes) {
      const auto at = std::find(read.columns.begin(), read.columns.end(), route.column);
      if (at == read.columns.end()) throw std::invalid_argument("prepare_ablation: " + read.name + " lacks a source");
      Gate& gate = gates.emplace_back(Gate{static_cast<std::size_t>(at - read.columns.begin()), route.share});
      if (ablation_ == Ablation::freeze)
        gate.mean = reference_.alpha_mean.at(index(r * plan_.num_columns() + route.column));
      if (donor_of(ablation_) == Donor::mean && changes_keys(ablation_))
        gate.mean = logit_of(model_, r, gate, reference_.source_mean.at(index(partial_of(read, r, gate))));
    }
    return gates;
  }

  /// `kept` [tokens, sources] of one of the two passes, from where these sequences begin.
  std::span<const double> rows_of(const std::vector<std::vector<double>>& kept, int r) const {
    const std::size_t sources = plan_.reads[index(r)].columns.size();
    return std::span(kept[index(r)])
        .subspan(index(place_.begin) * sources, index(place_.sequences * place_.positions) * sources);
  }

  /// What takes the place of a gated entry of a table [tokens, sources], of which `text` is the donors'.
  auto other(std::size_t sources, std::span<const double> text) const {
    return [donor = donor_of(ablation_), position = position_, sources, text](std::size_t token, const Gate& gate,
                                                                              std::span<const double> was) -> double {
      if (donor == Donor::mean) return gate.mean;
      if (donor == Donor::text) return text[token * sources + gate.source];
      return donor == Donor::position ? was[index((*position)[token]) * sources + gate.source] : 0.0;
    };
  }

  Edit change_of_weights(int r, std::size_t sources, const std::vector<Gate>& gates) const {
    const bool text = donor_of(ablation_) == Donor::text;
    return
        [sources, gates, other = other(sources, text ? rows_of(place_.donors->alpha, r) : std::span<const double>())](
            std::span<const double> alpha, std::span<double> edited) {
          std::copy(alpha.begin(), alpha.end(), edited.begin());
          mix_in(alpha, edited, sources, gates, other);
        };
  }

  std::function<void(std::span<double>)> change_of_logits(int r, const std::vector<Gate>& gates) const {
    const std::size_t sources = plan_.reads[index(r)].columns.size();
    const bool masks = ablation_ == Ablation::mask, keys = changes_keys(ablation_),
               text = keys && donor_of(ablation_) == Donor::text;
    const auto intact = place_.frozen ? rows_of(place_.frozen->logits, r) : std::span<const double>();
    return [=, other = other(sources, text ? rows_of(place_.donors->logits, r) : std::span<const double>())](
               std::span<double> logits) {
      if (!intact.empty()) std::copy(intact.begin(), intact.end(), logits.begin());
      if (keys) mix_in(std::vector<double>(logits.begin(), logits.end()), logits, sources, gates, other);
      for (std::size_t begin = 0; masks && begin < logits.size(); begin += sources)
        for (const Gate& gate : gates) logits[begin + gate.source] += std::log1p(-gate.share);
    };
  }

  std::vector<model::ExtraValue> other_values(int r, std::span<const Gate> gates,
                                              std::vector<kernels::OwnedTensor>& owned) const {
    const model::Read& read = plan_.reads[index(r)];
    if (donor_of(ablation_) == Donor::mean) return mean_values(model_, read, r, gates, reference_, owned);
    std::vector<model::ExtraValue> out;
    for (const Gate& gate : gates) {
      if (donor_of(ablation_) == Donor::position) {
        out.push_back({{}, static_cast<int>(gate.source), *position_});
        continue;
      }
      std::vector<std::int32_t> rows(index(place_.sequences * place_.positions));
      std::iota(rows.begin(), rows.end(), static_cast<std::int32_t>(place_.begin));
      out.push_back({place_.donors->partial[index(partial_of(read, r, gate))].tensor, -1, std::move(rows)});
    }
    return out;
  }

  const model::Model& model_;
  const model::ReadPlan& plan_;
  Ablation ablation_;
  const Reference& reference_;
  const BatchPlace& place_;
  std::shared_ptr<const std::vector<std::int32_t>> position_;
};

/// Reads behind the first changed one keep the weights of the intact model.
void freeze_later_reads(const model::ReadPlan& plan, const BatchPlace& place, PreparedAblation& out) {
  const std::int64_t tokens = place.sequences * place.positions;
  for (int r = out.changed_reads.empty() ? plan.num_routed() : out.changed_reads.front(); r < plan.num_routed(); ++r) {
    if (!out.intervention.edits.contains(r))
      out.intervention.alpha_override[r] =
          place.frozen->on_device[index(r)].tensor.rows(place.begin, place.begin + tokens);
  }
}

}  // namespace

std::int64_t resample_donor(std::uint64_t seed, std::int64_t sequence, std::int64_t position, std::int64_t positions) {
  const std::uint64_t key =
      splitmix(splitmix(splitmix(seed) ^ static_cast<std::uint64_t>(sequence)) ^ static_cast<std::uint64_t>(position));
  const std::int64_t other = below(key, positions - 1);
  return other < position ? other : other + 1;
}

void expect_room_for_means(const model::ReadPlan& plan, kernels::Device device, Ablation ablation,
                           const std::string& set, std::span<const GatedRoute> routes) {
  if (device != kernels::Device::cuda || !changes_values(ablation)) return;
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
  PreparedAblation out;
  out.changed_reads = changed_reads(model.plan(), ablation, routes);
  const Preparer preparer(model, ablation, reference, place);
  for_each_read(routes, [&](int r, std::span<const GatedRoute> of_read) {
    if (std::binary_search(out.changed_reads.begin(), out.changed_reads.end(), r)) preparer.change(r, of_read, out);
  });
  if (place.frozen) freeze_later_reads(model.plan(), place, out);
  return out;
}

}  // namespace routescope::analysis
