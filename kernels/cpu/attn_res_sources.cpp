// CPU: the part of the Attention Residuals gradient that waited (MATH.md, "What is cheap and what is not"). For each
// token and source i, over the R reads that share the sources:
//   dsource_i += sum_r alpha_ri dh_r + sum_r (dlogit_ri s_i) u_r - v_i sum_r dlogit_ri s_i^2 score_ri / d
// R + 3n passes over d instead of the R (3n + 1) of adding up read by read. Also the routing record's sums.
#include <omp.h>

#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/read.h"

namespace routescope::cpu {

namespace {

/// Reads are taken this many at a time, which bounds the scratch; more reads mean more passes.
constexpr std::size_t kReads = 16;

/// The weights of one token: of dh_r and u_r for each source and read, and of v_i for each source.
struct Weights {
  float* dh;   // [sources, kReads]
  float* u;    // [sources, kReads]
  float* own;  // [sources]
  Weights(float* at, std::int64_t n) : dh(at), u(at + n * kReads), own(at + 2 * n * kReads) {}
  static std::int64_t floats(std::int64_t n) { return n * static_cast<std::int64_t>(2 * kReads + 1); }
};

void weigh(const Weights& weights, std::span<const AttnResDeferred> reads, const AttnResSources& sources,
           std::int64_t token, std::int64_t d) {
  const std::size_t n = sources.values.size();
  for (std::size_t i = 0; i < n; ++i) {
    const float s = sources.inv_rms[i].as<float>()[token];
    float own = 0;
    for (std::size_t r = 0; r < reads.size(); ++r) {
      const std::size_t at = static_cast<std::size_t>(token) * (n + 1) + i;
      const float along_u = reads[r].dlogit.as<float>()[at] * s;
      weights.dh[i * kReads + r] = reads[r].alpha.as<float>()[at];
      weights.u[i * kReads + r] = along_u;
      own += along_u * s * reads[r].score.as<float>()[at];
    }
    weights.own[i] = own / static_cast<float>(d);
  }
}

}  // namespace

void attn_res_backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                               const AttnResSources& sources, const Stream& stream) {
  if (dsources.empty()) return;
  const std::int64_t tokens = dsources[0].shape[0], d = dsources[0].shape[1];
  const auto n = static_cast<std::int64_t>(dsources.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(kReads * static_cast<std::size_t>(d));
  PerThreadRows weight_rows(scratch, Weights::floats(n));

  for (std::size_t first = 0; first < reads.size(); first += kReads) {
    const auto group = reads.subspan(first, std::min(kReads, reads.size() - first));
    for (std::size_t r = 0; r < group.size(); ++r)
      multiply_rows(u + static_cast<std::int64_t>(r) * d, group[r].query.as<float>(), group[r].key_gain.as<float>(), d);

    const auto columns = [&](const Weights& weights, std::int64_t t, std::int64_t begin, std::int64_t width) {
      for (std::int64_t i = 0; i < n; ++i) {
        float* to = dsources[static_cast<std::size_t>(i)].as<float>() + t * d + begin;
        const float* value = sources.values[static_cast<std::size_t>(i)].as<float>() + t * d + begin;
        const float own = weights.own[i];
        alignas(64) float sum[kLanes];
        if (width == kLanes) {
#pragma omp simd
          for (int l = 0; l < kLanes; ++l) sum[l] = to[l] - own * value[l];
        } else {
          for (std::int64_t l = 0; l < width; ++l) sum[l] = to[l] - own * value[l];
        }
        for (std::size_t r = 0; r < group.size(); ++r) {
          const float* dh = group[r].dh.as<float>() + t * d + begin;
          const float* key = u + static_cast<std::int64_t>(r) * d + begin;
          const float a = weights.dh[static_cast<std::size_t>(i) * kReads + r];
          const float b = weights.u[static_cast<std::size_t>(i) * kReads + r];
          if (width == kLanes) {
#pragma omp simd
            for (int l = 0; l < kLanes; ++l) sum[l] += a * dh[l] + b * key[l];
          } else {
            for (std::int64_t l = 0; l < width; ++l) sum[l] += a * dh[l] + b * key[l];
          }
        }
        for (std::int64_t l = 0; l < width; ++l) to[l] = sum[l];
      }
    };
    const std::int64_t row_width = d * (static_cast<std::int64_t>(group.size()) + 3 * n);
    parallel_for(row_chunks(tokens, row_width), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const Weights weights(weight_rows.mine(), n);
      for (std::int64_t t = begin; t < end; ++t) {
        weigh(weights, group, sources, t, d);
        for (std::int64_t j = 0; j < d; j += kLanes) columns(weights, t, j, std::min<std::int64_t>(kLanes, d - j));
      }
    });
  }
}

/// Partial sums of one chunk: alpha, alpha^2 and rms for each column, then the entropy, in double.
void routing_statistics(Tensor sums, Tensor entropy, Tensor alpha, std::span<const Tensor> inv_rms,
                        const Stream& stream) {
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1], width = 3 * columns + 1;
  const Chunks chunks = reduction_chunks(tokens);
  Scratch scratch(stream);
  double* partials = scratch.take<double>(static_cast<std::size_t>(kMaxPartials * width));
  parallel_for(chunks, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
    double* partial = partials + c * width;
    std::fill(partial, partial + width, 0.0);
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = 0; i < columns; ++i) {
        const double a = static_cast<double>(alpha.as<float>()[t * columns + i]);
        partial[i] += a;
        partial[columns + i] += a * a;
        partial[2 * columns + i] += 1 / static_cast<double>(inv_rms[static_cast<std::size_t>(i)].as<float>()[t]);
        if (a > 0) partial[3 * columns] -= a * std::log(a);
      }
    }
  });
  for (std::int64_t c = 0; c < chunks.number(); ++c) {
    for (std::int64_t i = 0; i < 3 * columns; ++i) sums.as<double>()[i] += partials[c * width + i];
    entropy.as<double>()[0] += partials[c * width + 3 * columns];
  }
}

}  // namespace routescope::cpu
