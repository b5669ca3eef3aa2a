// Edits of reads, each written twice: as an edit of weights for a Pass, and as a change of h for plain loops.
#pragma once

#include <string>
#include <vector>

#include "model/pass/intervention.h"
#include "model/pass/model.h"
#include "tests/model/pass/plain_model.h"

namespace routescope::testing {

/// A change of some reads of a model. The intervention's extras are on the model's device.
struct EditCase {
  std::string name;
  model::RoutingIntervention intervention;
  PlainModel::Rule rule;
  std::vector<kernels::OwnedTensor> owned;
};

/// Source `i` modulo the read's sources, so that every read of any mode has it.
inline std::size_t some_source(std::size_t i, std::size_t sources) {
  return i % sources;
}

/// Ablations of source `which` (modulo the sources) of `reads`, and one edit of everything at once.
// NOLINTNEXTLINE(readability-function-size): a table of cases.
inline std::vector<EditCase> edit_cases(const model::Model& model, const std::vector<int>& reads, std::size_t which) {
  const auto d = static_cast<std::size_t>(model.config().hidden_size);
  const auto columns_of = [&](int r) { return model.plan().reads[static_cast<std::size_t>(r)].columns.size(); };
  using Weights = std::function<void(std::span<const double>, std::span<double>, std::size_t tokens, std::size_t n,
                                     std::size_t source)>;
  // edited is laid out [tokens, n + extras], n sources in all.
  const auto make = [&](std::string name, const std::vector<Row>& extra, const Weights& weights,
                        const std::function<void(PlainRead&, Rows & h, std::size_t source)>& words) {
    EditCase out;
    out.name = std::move(name);
    std::vector<model::ExtraValue> values;
    for (const Row& row : extra) {
      out.owned.emplace_back(model.options().activations(), model.options().device,
                             std::initializer_list<std::int64_t>{static_cast<std::int64_t>(d)});
      kernels::cast(out.owned.back().tensor,
                    kernels::Tensor(const_cast<double*>(row.data()), kernels::DType::f64, kernels::Device::cpu,
                                    {static_cast<std::int64_t>(d)}),
                    kernels::Stream{.device = model.options().device});
      values.push_back({out.owned.back().tensor});
    }
    for (int r : reads) {
      const std::size_t n = columns_of(r), source = some_source(which, n), extras = extra.size();
      out.intervention.edits[r] = {.extra = values,
                                   .alpha = [=](std::span<const double> alpha, std::span<double> edited) {
                                     const std::size_t tokens = alpha.size() / n;
                                     for (std::size_t t = 0; t < tokens; ++t)
                                       for (std::size_t i = 0; i < n + extras; ++i)
                                         edited[t * (n + extras) + i] = i < n ? alpha[t * n + i] : 0.0;
                                     weights(alpha, edited, tokens, n, source);
                                   }};
    }
    out.rule = [=](const PlainRead& read) {
      PlainRead changed = read;
      Rows h = read.mixture();
      if (std::find(reads.begin(), reads.end(), read.read) != reads.end())
        words(changed, h, some_source(which, read.values.size()));
      return h;
    };
    return out;
  };
  Row fixed(d), other(d);
  for (std::size_t j = 0; j < d; ++j) {
    fixed[j] = 0.25 * static_cast<double>(static_cast<int>(j % 7) - 3);  // exact in bf16 too
    other[j] = 0.5 - 0.125 * static_cast<double>(j % 5);
  }
  // h += by * (to - v_source) of a token.
  const auto shift = [d](Row& h, double by, const Row& v) {
    for (std::size_t j = 0; j < d; ++j) h[j] += by * v[j];
  };

  std::vector<EditCase> out;
  out.push_back(make(
      "keep", {}, [](auto...) {}, [](PlainRead&, Rows&, std::size_t) {}));
  out.push_back(make(
      "zero", {},
      [](auto, auto edited, std::size_t tokens, std::size_t n, std::size_t source) {
        for (std::size_t t = 0; t < tokens; ++t) edited[t * n + source] = 0;
      },
      [=](PlainRead& read, Rows& h, std::size_t source) {
        for (std::size_t t = 0; t < h.size(); ++t) shift(h[t], -read.alpha[t][source], read.values[source][t]);
      }));
  out.push_back(make(
      "replace", {fixed},
      [](auto alpha, auto edited, std::size_t tokens, std::size_t n, std::size_t source) {
        for (std::size_t t = 0; t < tokens; ++t) {
          edited[t * (n + 1) + source] = 0;
          edited[t * (n + 1) + n] = alpha[t * n + source];
        }
      },
      [=](PlainRead& read, Rows& h, std::size_t source) {
        for (std::size_t t = 0; t < h.size(); ++t) {
          shift(h[t], -read.alpha[t][source], read.values[source][t]);
          shift(h[t], read.alpha[t][source], fixed);
        }
      }));
  out.push_back(make(
      "another token's", {},
      [](auto alpha, auto edited, std::size_t tokens, std::size_t n, std::size_t source) {
        for (std::size_t t = 0; t < tokens; ++t) edited[t * n + source] = alpha[(t * 5 + 3) % tokens * n + source];
      },
      [=](PlainRead& read, Rows& h, std::size_t source) {
        for (std::size_t t = 0; t < h.size(); ++t)
          shift(h[t], read.alpha[(t * 5 + 3) % h.size()][source] - read.alpha[t][source], read.values[source][t]);
      }));
  out.push_back(make(
      "constant", {},
      [](auto, auto edited, std::size_t tokens, std::size_t n, std::size_t source) {
        for (std::size_t t = 0; t < tokens; ++t) edited[t * n + source] = 0.375;
      },
      [=](PlainRead& read, Rows& h, std::size_t source) {
        for (std::size_t t = 0; t < h.size(); ++t) shift(h[t], 0.375 - read.alpha[t][source], read.values[source][t]);
      }));
  out.push_back(make(
      "everything, two extras", {fixed, other},
      [](auto alpha, auto edited, std::size_t tokens, std::size_t n, std::size_t) {
        for (std::size_t t = 0; t < tokens; ++t) {
          for (std::size_t i = 0; i < n; ++i) edited[t * (n + 2) + i] = 0.5 * alpha[t * n + i];
          edited[t * (n + 2) + n] = 0.25 + alpha[t * n];
          edited[t * (n + 2) + n + 1] = -0.5;
        }
      },
      [=](PlainRead& read, Rows& h, std::size_t) {
        for (std::size_t t = 0; t < h.size(); ++t) {
          for (double& value : h[t]) value *= 0.5;
          shift(h[t], 0.25 + read.alpha[t][0], fixed);
          shift(h[t], -0.5, other);
        }
      }));
  return out;
}

}  // namespace routescope::testing
