// CPU: the Attention Residuals read in two phases (MATH.md, "Cost"), a row at a time.
//   prepare: score_i = s_i <u, v_i>,  lse = ln sum_i exp(score_i + B_i),  output = sum_i exp(score_i + B_i - lse) v_i,
//            for all reads of a block while a token's n sources are in the cache: (n + R) d floats a token
//   merge:   alpha_n = sigmoid(score_n + B_n + bias - lse),  h = (1 - alpha_n) output + alpha_n p,
//            x = rms_norm(h) gain: y, p and the output in, p and x out, 5 d floats a token
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/backends.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/read.h"
#include "kernels/cpu/parts/residual.h"

namespace routescope::kernels::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Reads are taken this many at a time, which bounds the scratch.
constexpr std::int64_t kReads = 16;

float given_bias(const AttnResParams& params, std::int64_t source) {
  return params.logit_bias ? params.logit_bias.as<float>()[source] : 0.0f;
}

/// Replaces logits [count] by exp(logit - lse), all 0 where all are masked; returns lse = ln sum exp(logit).
float normalise(float* logits, std::int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  if (largest == -kInfinity) {
    std::fill_n(logits, count, 0.0f);
    return -kInfinity;
  }
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += logits[i] = exp(logits[i] - largest);
  for (std::int64_t i = 0; i < count; ++i) logits[i] /= sum;
  return largest + std::log(sum);
}

void prepare_row(const AttnResPrepared& read, const AttnResParams& params, const float* u, float* weight,
                 const SourceRow& v, std::int64_t t, std::int64_t d) {
  const std::int64_t n = v.count();
  float* score = read.score.as<float>() + t * (n + 1);
  dots(score, u, v, d);
  for (std::int64_t i = 0; i < n; ++i) {
    score[i] *= v.inv_rms(i);
    weight[i] = score[i] + given_bias(params, i);
  }
  read.lse.as<float>()[t] = normalise(weight, n);
  float* output = read.output.as<float>() + t * d;
  weighted_sums(
      v, d, [=](std::int64_t i) { return weight[i]; }, [=](auto at, Vec sum) { at.store(output, sum); });
}

}  // namespace

void attn_res_prepare(std::span<const AttnResPrepared> reads, std::span<const AttnResParams> params,
                      const AttnResSources& sources, const Stream& stream) {
  const std::int64_t tokens = sources.values[0].shape[0], d = sources.values[0].shape[1];
  const auto n = static_cast<std::int64_t>(sources.values.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(kReads * d));
  const PerThread weight_rows(scratch, n);
  for (std::size_t first = 0; first < reads.size(); first += kReads) {
    const auto some = reads.subspan(first, std::min<std::size_t>(kReads, reads.size() - first));
    for (std::size_t r = 0; r < some.size(); ++r)
      multiply_rows(u + static_cast<std::int64_t>(r) * d, params[first + r].query.as<float>(),
                    params[first + r].key_gain.as<float>(), d);
    const std::int64_t row_width = d * (n + static_cast<std::int64_t>(some.size()));
    parallel_for(row_chunks(tokens, row_width), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        for (std::size_t r = 0; r < some.size(); ++r)
          prepare_row(some[r], params[first + r], u + static_cast<std::int64_t>(r) * d, weight_rows.mine(),
                      SourceRow(sources, t), t, d);
    });
  }
}

void attn_res_merge(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResPrepared& prepared,
                    const AttnResParams& params, const Stream& stream) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1], n = state.alpha.shape[1] - 1;
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(d));
  const PerThread h_rows(scratch, d);
  multiply_rows(u, params.query.as<float>(), params.key_gain.as<float>(), d);
  const float* norm_gain = params.norm_gain.as<float>();
  const float bias = given_bias(params, n) + (params.bias ? params.bias.as<float>()[0] : 0.0f);

  with_operand(x, [&]<class T>(T* out) {
    parallel_for(row_chunks(tokens, 5 * d), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      float* h = h_rows.mine();
      for (std::int64_t t = begin; t < end; ++t) {
        float* p = state.partial.as<float>() + t * d;
        const float s = inverse_rms(add_rows(p, row_or_null(p_in, t), row_or_null(y, t), d), d, params.eps);
        state.inv_rms.as<float>()[t] = s;

        float* score = state.score.as<float>() + t * (n + 1);
        float* alpha = state.alpha.as<float>() + t * (n + 1);
        score[n] = s * dot(u, p, d);
        const float lse = prepared.lse.as<float>()[t], above = score[n] + bias - lse;
        // Both from an exponential of their own, so that a mask makes one of them exactly 0 and the other exactly 1.
        const float current = 1 / (1 + std::exp(-above)), rest = 1 / (1 + std::exp(above));
        for (std::int64_t i = 0; i < n; ++i)
          alpha[i] = lse == -kInfinity ? 0.0f : rest * exp(score[i] + given_bias(params, i) - lse);
        alpha[n] = current;

        const float* output = prepared.output.as<float>() + t * d;
        const float squares = sum_columns(d, [=](auto at) {
          const Vec value = rest * at.load(output) + current * at.load(p);
          at.store(h, value);
          return value * value;
        });
        const float s_h = inverse_rms(squares, d, params.eps);
        state.h_inv_rms.as<float>()[t] = s_h;
        T* to = out + t * d;
        for_columns(d, [=](auto at) { at.store(to, at.load(h) * s_h * at.load(norm_gain)); });
      }
    });
  });
}

}  // namespace routescope::kernels::cpu
