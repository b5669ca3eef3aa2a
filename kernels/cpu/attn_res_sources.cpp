// CPU: the part of the Attention Residuals gradient that waits (MATH.md, "Gradients"). For each token and source i,
// over the R reads that share the sources:
//   dsource_i += sum_r alpha_ri dh_r + sum_r (dlogit_ri s_i) u_r - v_i sum_r dlogit_ri s_i^2 score_ri / d
// R + 3n passes over d, where read by read it would be R (3n + 1).
#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/read.h"

namespace routescope::kernels::cpu {

namespace {

/// Reads are taken this many at a time, which bounds the scratch; more reads mean more passes.
constexpr std::int64_t kReads = 16;

/// The reads of one pass: their u_r and where their gradients are.
struct Group {
  std::int64_t count;
  const float* u[kReads];
  const float* dh[kReads];  // of the first token
};

/// The weights of one token: of dh_r and u_r for each source and read, and of v_i for each source.
struct Weights {
  float* dh;   // [sources, kReads]
  float* u;    // [sources, kReads]
  float* own;  // [sources]
  Weights(float* at, std::int64_t n) : dh(at), u(at + n * kReads), own(at + 2 * n * kReads) {}
  static std::int64_t floats(std::int64_t n) { return n * (2 * kReads + 1); }
};

void weigh(const Weights& weights, std::span<const AttnResDeferred> reads, const AttnResSources& sources,
           std::int64_t token, std::int64_t d) {
  const auto n = static_cast<std::int64_t>(sources.values.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const float s = sources.inv_rms[static_cast<std::size_t>(i)].as<float>()[token];
    const std::int64_t at = token * (n + 1) + i;
    float own = 0;
    for (std::size_t r = 0; r < reads.size(); ++r) {
      const float along_u = reads[r].dlogit.as<float>()[at] * s;
      weights.dh[i * kReads + static_cast<std::int64_t>(r)] = reads[r].alpha.as<float>()[at];
      weights.u[i * kReads + static_cast<std::int64_t>(r)] = along_u;
      own += along_u * s * reads[r].score.as<float>()[at];
    }
    weights.own[i] = own / static_cast<float>(d);
  }
}

/// Adds to the kSources sources from `first` on, for one token and block of columns. Each load of a read's row serves
/// all of them.
template <int kSources, class Vecs, class At>
void add_columns(std::span<const Tensor> dsources, const AttnResSources& sources, const Group& group,
                 const Weights& weights, std::int64_t first, std::int64_t row, std::int64_t d, Vecs vecs, At at) {
  Vec sum[kSources][vecs];
  for (int i = 0; i < kSources; ++i) {
    const auto source = static_cast<std::size_t>(first + i);
    const float* to = dsources[source].as<float>() + row;
    const float* value = sources.values[source].as<float>() + row;
    const float own = weights.own[first + i];
    for (int k = 0; k < vecs; ++k) {
      sum[i][k] = next(at, k).load(to) - own * next(at, k).load(value);
      __builtin_prefetch(to + d + next(at, k).j, 1, 2);
      __builtin_prefetch(value + d + next(at, k).j, 0, 2);
    }
  }
  for (std::int64_t r = 0; r < group.count; ++r) {
    for (int k = 0; k < vecs; ++k) {
      const Vec dh = next(at, k).load(group.dh[r] + row), u = next(at, k).load(group.u[r]);
      for (int i = 0; i < kSources; ++i)
        sum[i][k] += weights.dh[(first + i) * kReads + r] * dh + weights.u[(first + i) * kReads + r] * u;
    }
  }
  for (int i = 0; i < kSources; ++i) {
    float* to = dsources[static_cast<std::size_t>(first + i)].as<float>() + row;
    for (int k = 0; k < vecs; ++k) next(at, k).store(to, sum[i][k]);
  }
}

}  // namespace

void attn_res_backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                               const AttnResSources& sources, const Stream& stream) {
  if (dsources.empty()) return;
  const std::int64_t tokens = dsources[0].shape[0], d = dsources[0].shape[1];
  const auto n = static_cast<std::int64_t>(dsources.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(kReads * d));
  const PerThread weight_rows(scratch, Weights::floats(n));

  for (std::size_t first_read = 0; first_read < reads.size(); first_read += kReads) {
    const auto some = reads.subspan(first_read, std::min<std::size_t>(kReads, reads.size() - first_read));
    Group group{static_cast<std::int64_t>(some.size()), {}, {}};
    for (std::size_t r = 0; r < some.size(); ++r) {
      float* key = u + static_cast<std::int64_t>(r) * d;
      multiply_rows(key, some[r].query.as<float>(), some[r].key_gain.as<float>(), d);
      group.u[r] = key;
      group.dh[r] = some[r].dh.as<float>();
    }
    const std::int64_t row_width = d * (group.count + 3 * n);
    parallel_for(row_chunks(tokens, row_width), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const Weights weights(weight_rows.mine(), n);
      for (std::int64_t t = begin; t < end; ++t) {
        weigh(weights, some, sources, t, d);
        for_column_blocks<4>(d, [&](auto vecs, auto at) {
          std::int64_t i = 0;
          for (; i + 2 <= n; i += 2) add_columns<2>(dsources, sources, group, weights, i, t * d, d, vecs, at);
          for (; i < n; ++i) add_columns<1>(dsources, sources, group, weights, i, t * d, d, vecs, at);
        });
      }
    });
  }
}

}  // namespace routescope::kernels::cpu
