// The cases of the Attention Residuals read, as op_cases.h for the other operations.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/op_cases.h"

namespace routescope::testing {

/// What a case does beside the plain read.
struct ReadOptions {
  bool last_source_is_partial = false;  // `cumulative`: the partial was just appended to the sources
  bool logit_bias = false;              // with a mask (-inf) on every third source
  bool learned_bias = false;
  bool alpha_override = false;
  bool zero_query = false;     // as at initialisation
  bool fresh_partial = false;  // p = y alone, as after a completed block
  bool only_current = false;   // all completed sources masked
  bool no_current = false;     // the current source masked
};

inline std::vector<double> masking_bias(std::int64_t columns) {
  std::vector<double> out = random_numbers(columns, 77);
  for (std::size_t i = 0; i + 1 < out.size(); i += 3) out[i] = -std::numeric_limits<double>::infinity();
  return out;
}

inline std::vector<double> only_current_bias(std::int64_t columns) {
  std::vector<double> out(static_cast<std::size_t>(columns), -std::numeric_limits<double>::infinity());
  out.back() = -0.5;
  return out;
}

inline std::vector<double> no_current_bias(std::int64_t columns) {
  std::vector<double> out = random_numbers(columns, 78);
  out.back() = -std::numeric_limits<double>::infinity();
  return out;
}

/// Collects a read's arguments from a run's tensors. The spans of AttnResSources point into the vectors, hence a class.
class ReadArguments {
 public:
  ReadArguments(const Tensors& r, std::int64_t n, bool last_source_is_partial) {
    state = {r["p"], r["inv_rms"], r["score"], r["alpha"], r["h_inv_rms"]};
    params = {r["query"], r["key_gain"], r["bias"], r["logit_bias"], r["norm_gain"], 1e-6};
    for (std::int64_t i = 0; i < n; ++i) {
      const bool partial = last_source_is_partial && i + 1 == n;
      values_.push_back(partial ? r["p"] : r["source" + std::to_string(i)]);
      inv_rms_.push_back(partial ? r["inv_rms"] : r["source_inv_rms" + std::to_string(i)]);
    }
  }
  kernels::AttnResSources sources() const { return {values_, inv_rms_}; }
  kernels::AttnResState state;
  kernels::AttnResParams params;

 private:
  std::vector<kernels::Tensor> values_;
  std::vector<kernels::Tensor> inv_rms_;
};

inline std::string read_label(const char* operation, std::int64_t tokens, std::int64_t d, std::int64_t n,
                              const ReadOptions& options) {
  return label(operation, {{"tokens", tokens}, {"d", d}, {"n", n}}) + (options.last_source_is_partial ? "_alias" : "") +
         (options.logit_bias ? "_masked" : "") + (options.learned_bias ? "_bias" : "") +
         (options.alpha_override ? "_given" : "") + (options.zero_query ? "_zero" : "") +
         (options.fresh_partial ? "_fresh" : "") + (options.only_current ? "_current" : "") +
         (options.no_current ? "_history" : "");
}

/// The inputs and outputs of a forward read. Queries are scaled so that logits are of order 1.
inline OpCase read_case(const char* operation, std::int64_t tokens, std::int64_t d, std::int64_t n,
                        const ReadOptions& options) {
  OpCase out(read_label(operation, tokens, d, n, options));
  const auto terms = static_cast<double>(d);
  for (std::int64_t i = 0; i < n; ++i) {
    const double rms = 1 + 0.3 * static_cast<double>(i);
    out.input("source" + std::to_string(i), Role::activation, {tokens, d}, rms)
        .input("source_inv_rms" + std::to_string(i), Role::real, {tokens}, 0.05 / rms, 1 / rms);
  }
  out.input("query", Role::real, {d}, options.zero_query ? 0.0 : 1 / std::sqrt(terms))
      .input("key_gain", Role::real, {d}, 0.3, 1)
      .input("norm_gain", Role::real, {d}, 0.3, 1)
      .input("y", Role::activation, {tokens, d});
  if (!options.fresh_partial) out.input("p_in", Role::activation, {tokens, d});
  if (options.logit_bias) out.given("logit_bias", Role::real, {n + 1}, masking_bias(n + 1));
  if (options.only_current) out.given("logit_bias", Role::real, {n + 1}, only_current_bias(n + 1));
  if (options.no_current) out.given("logit_bias", Role::real, {n + 1}, no_current_bias(n + 1));
  if (options.learned_bias) out.given("bias", Role::real, {1}, {1.5});
  if (options.alpha_override) out.input("alpha_override", Role::real, {tokens, n + 1}, 0.3, 0.5);
  out.output("x", Role::operand, {tokens, d}, terms)
      .output("p", Role::activation, {tokens, d}, 2)
      .output("inv_rms", Role::real, {tokens}, terms)
      .output("score", Role::real, {tokens, n + 1}, terms)
      .output("alpha", Role::real, {tokens, n + 1}, terms)
      .output("h_inv_rms", Role::real, {tokens}, terms)
      .limits({.tokens = tokens, .hidden_size = d, .sources = n + 1});
  return out;
}

inline void add_read(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d, std::int64_t n,
                     const ReadOptions& options) {
  const auto forward = [=](const Tensors& r, const ReadArguments& read, kernels::Tensor x, const kernels::Stream& s) {
    kernels::attn_res_forward(x, read.state, r["p_in"], r["y"], read.sources(), read.params, r["alpha_override"], s);
  };
  cases.push_back(
      read_case("attn_res_forward", tokens, d, n, options).call([=](const Tensors& r, const kernels::Stream& s) {
        forward(r, ReadArguments(r, n, options.last_source_is_partial), r["x"], s);
      }));
  const auto terms = static_cast<double>(d), rows = static_cast<double>(tokens * (n + 1));
  OpCase backward = read_case("attn_res_backward", tokens, d, n, options);
  backward.input("dx", Role::activation, {tokens, d})
      .output("dh", Role::activation, {tokens, d}, terms)
      .output("dlogit", Role::real, {tokens, n + 1}, 2 * terms)
      .output("dp", Role::activation, {tokens, d}, 2 * terms)
      .output("dquery", Role::real, {d}, rows + terms)
      .output("dkey_gain", Role::real, {d}, rows + terms)
      .output("dnorm_gain", Role::real, {d}, rows + terms);
  // A sum over tokens of alpha times differences of inner products <dh, v>, which have d terms of order 1 each.
  if (options.learned_bias)
    backward.output("dbias", Role::real, {1}, rows + terms, std::sqrt(static_cast<double>(tokens) * terms));
  for (std::int64_t i = 0; i < n; ++i)
    backward.output("dsource" + std::to_string(i), Role::activation, {tokens, d}, 2 * terms);
  cases.push_back(backward
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        const ReadArguments read(r, n, options.last_source_is_partial);
                        forward(r, read, r["x"], s);
                        kernels::attn_res_backward(r["dh"], r["dlogit"], r["dp"],
                                                   {r["dquery"], r["dkey_gain"], r["dbias"], r["dnorm_gain"]}, r["dx"],
                                                   read.state, read.sources(), read.params, options.alpha_override, s);
                        std::vector<kernels::Tensor> dsources;
                        for (std::int64_t i = 0; i < n; ++i) dsources.push_back(r["dsource" + std::to_string(i)]);
                        const kernels::AttnResDeferred deferred{r["dh"],          r["dlogit"], read.state.alpha,
                                                                read.state.score, r["query"],  r["key_gain"]};
                        kernels::attn_res_backward_sources(dsources, {&deferred, 1}, read.sources(), s);
                      })
                      .rounds_on_the_way());
}

/// A read in two phases. What it leaves is what attn_res_forward leaves.
inline void add_phases(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d, std::int64_t n,
                       const ReadOptions& options) {
  const auto terms = static_cast<double>(d);
  cases.push_back(read_case("attn_res_phases", tokens, d, n, options)
                      .output("output", Role::activation, {tokens, d}, terms)
                      .output("lse", Role::real, {tokens}, terms)
                      .rounds_on_the_way()
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        const ReadArguments read(r, n, false);
                        const kernels::AttnResPrepared prepared{r["output"], r["lse"], read.state.score};
                        kernels::attn_res_prepare({&prepared, 1}, {&read.params, 1}, read.sources(), s);
                        kernels::attn_res_merge(r["x"], read.state, r["p_in"], r["y"], prepared, read.params, s);
                      }));
}

/// Phase one for several reads: some without given biases, some with masks, some with nothing but masks. Backends take
/// the reads by powers of two: which biases a read has repeats after another number of them.
inline void add_prepare(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d, std::int64_t n,
                        std::int64_t reads) {
  OpCase out(label("attn_res_prepare", {{"tokens", tokens}, {"d", d}, {"n", n}, {"reads", reads}}));
  const auto terms = static_cast<double>(d);
  for (std::int64_t i = 0; i < n; ++i)
    out.input("source" + std::to_string(i), Role::activation, {tokens, d})
        .input("inv_rms" + std::to_string(i), Role::real, {tokens}, 0.05, 1);
  for (std::int64_t q = 0; q < reads; ++q) {
    const std::string number = std::to_string(q);
    out.input("query" + number, Role::real, {d}, 1 / std::sqrt(terms))
        .input("key_gain" + number, Role::real, {d}, 0.3, 1)
        .output("output" + number, Role::activation, {tokens, d}, terms)
        .output("lse" + number, Role::real, {tokens}, terms)
        .output("score" + number, Role::real, {tokens, n + 1}, terms);
    if (q % 5 == 1) out.given("logit_bias" + number, Role::real, {n + 1}, masking_bias(n + 1));
    if (q % 5 == 2) out.given("logit_bias" + number, Role::real, {n + 1}, only_current_bias(n + 1));
    if (q % 5 == 3) out.given("logit_bias" + number, Role::real, {n + 1}, no_current_bias(n + 1));
  }
  out.limits({.tokens = tokens, .hidden_size = d, .sources = n + 1})
      .call([=](const Tensors& r, const kernels::Stream& s) {
        std::vector<kernels::Tensor> values, inv_rms;
        for (std::int64_t i = 0; i < n; ++i) {
          values.push_back(r["source" + std::to_string(i)]);
          inv_rms.push_back(r["inv_rms" + std::to_string(i)]);
        }
        std::vector<kernels::AttnResPrepared> prepared;
        std::vector<kernels::AttnResParams> params;
        for (std::int64_t q = 0; q < reads; ++q) {
          const std::string number = std::to_string(q);
          prepared.push_back({r["output" + number], r["lse" + number], r["score" + number]});
          params.push_back({r["query" + number], r["key_gain" + number], kernels::Tensor(), r["logit_bias" + number],
                            kernels::Tensor()});
        }
        kernels::attn_res_prepare(prepared, params, {values, inv_rms}, s);
      });
  cases.push_back(out);
}

/// Reads of the same sources. Of more than 8 a backend may add up some at a time, with a rounded sum in between.
inline void add_deferred(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d, std::int64_t n,
                         std::int64_t reads) {
  OpCase out(label("attn_res_backward_sources", {{"tokens", tokens}, {"d", d}, {"n", n}, {"reads", reads}}));
  const auto terms = static_cast<double>(d);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::string number = std::to_string(i);
    out.input("source" + number, Role::activation, {tokens, d})
        .input("inv_rms" + number, Role::real, {tokens}, 0.05, 1)
        .output("dsource" + number, Role::activation, {tokens, d}, static_cast<double>(2 * reads));
  }
  for (std::int64_t q = 0; q < reads; ++q) {
    const std::string number = std::to_string(q);
    out.input("dh" + number, Role::activation, {tokens, d})
        .input("dlogit" + number, Role::real, {tokens, n + 1})
        .input("alpha" + number, Role::real, {tokens, n + 1})
        .input("query" + number, Role::real, {d}, 1 / std::sqrt(terms))
        .input("key_gain" + number, Role::real, {d}, 0.3, 1)
        .output("score" + number, Role::real, {tokens, n + 1}, terms);
  }
  out.limits({.tokens = tokens, .hidden_size = d, .sources = n + 1})
      .call([=](const Tensors& r, const kernels::Stream& s) {
        std::vector<kernels::Tensor> values, inv_rms, dsources;
        std::vector<std::vector<double>> rows, scales;
        for (std::int64_t i = 0; i < n; ++i) {
          values.push_back(r["source" + std::to_string(i)]);
          inv_rms.push_back(r["inv_rms" + std::to_string(i)]);
          dsources.push_back(r["dsource" + std::to_string(i)]);
          rows.push_back(values_of(values.back()));
          scales.push_back(values_of(inv_rms.back()));
        }
        std::vector<kernels::AttnResDeferred> deferred;
        for (std::int64_t q = 0; q < reads; ++q) {
          const std::string number = std::to_string(q);
          const kernels::AttnResDeferred read{r["dh" + number],    r["dlogit" + number], r["alpha" + number],
                                              r["score" + number], r["query" + number],  r["key_gain" + number]};
          // The score has to be that of the sources (the fast backend uses it, the reference computes it again).
          const std::vector<double> query = values_of(read.query), gain = values_of(read.key_gain);
          const kernels::OwnedTensor score = on_host(read.score);
          for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t i = 0; i < n; ++i) {
              double dot = 0;
              for (std::int64_t j = 0; j < d; ++j)
                dot += query[static_cast<std::size_t>(j)] * gain[static_cast<std::size_t>(j)] *
                       rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(t * d + j)];
              set(score.tensor, t * (n + 1) + i,
                  dot * scales[static_cast<std::size_t>(i)][static_cast<std::size_t>(t)]);
            }
          }
          kernels::copy(read.score, score.tensor, s);
          deferred.push_back(read);
        }
        kernels::attn_res_backward_sources(dsources, deferred, {values, inv_rms}, s);
      });
  if (reads > 8) out.rounds_on_the_way();
  cases.push_back(out);
}

inline void add_statistics(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t columns) {
  OpCase out(label("routing_statistics", {{"tokens", tokens}, {"columns", columns}}));
  for (std::int64_t i = 0; i < columns; ++i) out.input("inv_rms" + std::to_string(i), Role::real, {tokens}, 0.1, 1);
  std::vector<double> alpha = random_numbers(tokens * columns, 5);
  for (double& a : alpha) a = a < -1 ? 0 : std::fabs(a);  // zeros too: masked sources
  out.given("alpha", Role::real, {tokens, columns}, alpha)
      .output("sums", Role::sums, {3, columns}, static_cast<double>(tokens))
      .output("entropy", Role::sums, {1}, static_cast<double>(tokens * columns))
      .limits({.tokens = tokens, .sources = columns})
      .call([=](const Tensors& r, const kernels::Stream& s) {
        std::vector<kernels::Tensor> inv_rms;
        for (std::int64_t i = 0; i < columns; ++i) inv_rms.push_back(r["inv_rms" + std::to_string(i)]);
        kernels::routing_statistics(r["sums"], r["entropy"], r["alpha"], inv_rms, s);
      });
  cases.push_back(out);
}

inline void add_contributions(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d, std::int64_t columns) {
  OpCase out(label("contribution_statistics", {{"tokens", tokens}, {"d", d}, {"columns", columns}}));
  for (std::int64_t i = 0; i < columns; ++i) {
    // Of several lengths, with a direction in common, so that no mixture is short beside its terms.
    std::vector<double> value = random_numbers(tokens * d, 31 + static_cast<std::uint64_t>(i));
    for (std::size_t j = 0; j < value.size(); ++j) value[j] = (value[j] + 1) * (i % 3 == 0 ? 4 : 0.5);
    if (i == 1) std::fill(value.begin(), value.end(), 0.0);  // a source of zeros, the only one with weight below
    out.given("value" + std::to_string(i), Role::activation, {tokens, d}, value);
  }
  std::vector<double> alpha = random_numbers(tokens * columns, 6);
  for (double& a : alpha) a = a < -1 ? 0 : std::fabs(a);  // zeros too: masked sources
  for (std::int64_t i = 0; i < columns && tokens > 2; ++i)
    alpha[static_cast<std::size_t>(2 * columns + i)] = i == 1 ? 1 : 0;  // h is zero
  out.given("alpha", Role::real, {tokens, columns}, alpha)
      .output("sums", Role::sums, {2, columns}, static_cast<double>(tokens * d))
      .limits({.tokens = tokens, .hidden_size = d, .sources = columns})
      .call([=](const Tensors& r, const kernels::Stream& s) {
        std::vector<kernels::Tensor> values;
        for (std::int64_t i = 0; i < columns; ++i) values.push_back(r["value" + std::to_string(i)]);
        kernels::contribution_statistics(r["sums"], r["alpha"], values, s);
      });
  cases.push_back(out);
}

inline void add_reads(std::vector<OpCase>& cases) {
  const std::int64_t widths[] = {64, 96, 896, 1024};
  for (std::int64_t n = 0; n <= 9; ++n) add_read(cases, 33, widths[n % 4], n, {.learned_bias = n % 2 == 1});
  add_read(cases, 1, 64, 2, {.logit_bias = true});
  add_read(cases, 7, 100, 5, {.last_source_is_partial = true, .logit_bias = true, .learned_bias = true});
  add_read(cases, 7, 96, 1, {.last_source_is_partial = true, .fresh_partial = true});
  add_read(cases, 7, 96, 4, {.alpha_override = true});
  add_read(cases, 33, 64, 8, {.zero_query = true, .fresh_partial = true});
  add_read(cases, 7, 64, 56, {});
  add_read(cases, 1000, 96, 4, {.learned_bias = true});
  add_read(cases, 7, 96, 3, {.learned_bias = true, .only_current = true});
  add_read(cases, 7, 96, 3, {.learned_bias = true, .no_current = true});
  for (std::int64_t n = 1; n <= 9; ++n)
    add_phases(cases, 33, widths[n % 4], n, {.learned_bias = n % 2 == 1, .fresh_partial = n % 3 == 1});
  add_phases(cases, 7, 100, 5, {.logit_bias = true, .learned_bias = true});
  add_phases(cases, 1, 64, 3, {.learned_bias = true, .only_current = true});
  add_phases(cases, 7, 96, 3, {.learned_bias = true, .no_current = true});
  add_phases(cases, 7, 64, 56, {});
  add_prepare(cases, 1, 64, 1, 1);
  add_prepare(cases, 7, 100, 3, 4);
  add_prepare(cases, 33, 896, 8, 7);
  add_prepare(cases, 33, 64, 5, 18);
  add_prepare(cases, 7, 96, 20, 9);
  add_read(cases, 7, 96, 20, {.last_source_is_partial = true, .logit_bias = true});
  add_read(cases, 7, 70, 40, {.last_source_is_partial = true, .logit_bias = true, .learned_bias = true});
  add_deferred(cases, 7, 100, 3, 1);
  add_deferred(cases, 7, 70, 12, 3);
  add_deferred(cases, 33, 1024, 8, 8);
  add_deferred(cases, 33, 64, 8, 37);
  for (const std::int64_t tokens : {1, 33, 1000}) add_statistics(cases, tokens, 5);
  add_contributions(cases, 1, 64, 1);
  add_contributions(cases, 7, 100, 5);
  add_contributions(cases, 7, 70, 57);
  add_contributions(cases, 33, 1024, 9);
  add_contributions(cases, 1000, 96, 3);
}

}  // namespace routescope::testing
