// Reference: causal grouped-query attention, a query row at a time.
//   z_j = <q, k_j> / sqrt(head_dim) for j <= i,  lse = log sum exp z,  w = exp(z - lse),  out = sum_j w_j v_j
//   dw_j = <dout, v_j>,  dz_j = w_j (dw_j - <dout, out>)
//   dq += dz_j k_j / sqrt(head_dim),  dk_j += dz_j q / sqrt(head_dim),  dv_j += w_j dout
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Where the heads of one token begin in a packed row.
struct Row {
  const AttentionShape& shape;
  std::int64_t token;
  std::int64_t query(std::int64_t head) const { return token * shape.packed_width() + head * shape.head_dim; }
  std::int64_t key(std::int64_t kv_head) const { return query(shape.heads + kv_head); }
  std::int64_t value(std::int64_t kv_head) const { return query(shape.heads + shape.kv_heads + kv_head); }
};

}  // namespace

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream&) {
  const double* x = qkv.as<double>();
  const std::int64_t head_dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  std::vector<double> z(static_cast<std::size_t>(shape.seq_len));
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      for (std::int64_t i = 0; i < shape.seq_len; ++i) {
        const Row row{shape, b * shape.seq_len + i};
        double largest = -std::numeric_limits<double>::infinity();
        for (std::int64_t j = 0; j <= i; ++j) {
          const Row past{shape, b * shape.seq_len + j};
          z[static_cast<std::size_t>(j)] = scale * dot(x + row.query(head), x + past.key(head / group), head_dim);
          largest = std::max(largest, z[static_cast<std::size_t>(j)]);
        }
        double sum = 0;
        for (std::int64_t j = 0; j <= i; ++j) sum += std::exp(z[static_cast<std::size_t>(j)] - largest);
        const double row_lse = largest + std::log(sum);
        lse.as<double>()[(b * shape.heads + head) * shape.seq_len + i] = row_lse;
        double* o = out.as<double>() + (row.token * shape.heads + head) * head_dim;
        std::fill(o, o + head_dim, 0.0);
        for (std::int64_t j = 0; j <= i; ++j) {
          const double w = std::exp(z[static_cast<std::size_t>(j)] - row_lse);
          const double* v = x + Row{shape, b * shape.seq_len + j}.value(head / group);
          for (std::int64_t e = 0; e < head_dim; ++e) o[e] += w * v[e];
        }
      }
    }
  }
}

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                        const Stream&) {
  const double* x = qkv.as<double>();
  double* dx = dqkv.as<double>();
  const std::int64_t head_dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  std::fill(dx, dx + dqkv.numel(), 0.0);
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      for (std::int64_t i = 0; i < shape.seq_len; ++i) {
        const Row row{shape, b * shape.seq_len + i};
        const double* grad = dout.as<double>() + (row.token * shape.heads + head) * head_dim;
        const double delta = dot(grad, out.as<double>() + (row.token * shape.heads + head) * head_dim, head_dim);
        const double row_lse = lse.as<double>()[(b * shape.heads + head) * shape.seq_len + i];
        const std::int64_t q = row.query(head);
        for (std::int64_t j = 0; j <= i; ++j) {
          const Row past{shape, b * shape.seq_len + j};
          const std::int64_t k = past.key(head / group), v = past.value(head / group);
          const double w = std::exp(scale * dot(x + q, x + k, head_dim) - row_lse);
          const double dz = w * (dot(grad, x + v, head_dim) - delta);
          for (std::int64_t e = 0; e < head_dim; ++e) {
            dx[q + e] += scale * dz * x[k + e];
            dx[k + e] += scale * dz * x[q + e];
            dx[v + e] += w * grad[e];
          }
        }
      }
    }
  }
}

}  // namespace routescope::kernels::reference
