// A Qwen3 model with a standard or routed residual stream as plain loops in double precision. It is written from
// equations (MATH.md, "Residual stream and reads") and the Hugging Face names of the weights alone. Tests compare every
// change of the routing with it: a test can replace the h of any read, so an ablation is written there as it is
// defined.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/pass/model.h"

namespace routescope::testing {
using Row = std::vector<double>;
using Rows = std::vector<Row>;  // [token][...]

/// A read as it is about to mix its sources: completed ones, oldest first, then the current one.
struct PlainRead {
  int read = 0;
  std::vector<Rows> values;  // [source][token][d]
  Rows alpha;                // [token][source]

  Rows mixture() const {
    Rows h(alpha.size(), Row(values[0][0].size(), 0.0));
    for (std::size_t t = 0; t < h.size(); ++t)
      for (std::size_t i = 0; i < values.size(); ++i)
        for (std::size_t j = 0; j < h[t].size(); ++j) h[t][j] += alpha[t][i] * values[i][t][j];
    return h;
  }
};

class PlainModel {
 public:
  /// h [token][d] of a read, in place of sum_i alpha_i v_i.
  using Rule = std::function<Rows(const PlainRead&)>;

  /// Copies the parameters (f32 or f64) to double.
  explicit PlainModel(const model::Model& model) : config_(model.config()) {
    const kernels::Stream stream{.device = model.options().device};
    for (const model::ParameterInfo& info : model.layout().all())
      weights_[info.name] = kernels::host_values<double>(model.parameter(info.name), stream);
  }

  /// nll [tokens] in nats of each sequence's next token, 0 at its last position. ids [sequences * positions].
  /// `every_read`: the rule is asked also for reads that are not routed, whose one source has the weight 1.
  std::vector<double> nll(std::span<const std::int32_t> ids, std::size_t positions, const Rule& rule = {},
                          bool every_read = false) {
    positions_ = positions;
    rule_ = rule;
    every_read_ = every_read;
    reads_ = 0;
    Rows p;
    for (std::int32_t id : ids) p.push_back(row_of("model.embed_tokens.weight", static_cast<std::size_t>(id)));
    p = !config_.routed()                                   ? standard(std::move(p))
        : config_.source == model::AttnResSource::block_sum ? block_sum(std::move(p))
                                                            : cumulative(std::move(p));
    const Rows x = rms_norm(p, "model.norm.weight");
    const Rows logits = project(x, config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    std::vector<double> out(ids.size(), 0.0);
    for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
      if ((t + 1) % positions == 0) continue;
      double sum = 0;
      for (double logit : logits[t]) sum += std::exp(logit);
      out[t] = std::log(sum) - logits[t][static_cast<std::size_t>(ids[t + 1])];
    }
    return out;
  }

 private:
  const Row& weight(const std::string& name) const { return weights_.at(name); }
  std::size_t width() const { return static_cast<std::size_t>(config_.hidden_size); }
  Row row_of(const std::string& name, std::size_t row) const {
    const auto begin = weight(name).begin() + static_cast<std::ptrdiff_t>(row * width());
    return {begin, begin + static_cast<std::ptrdiff_t>(width())};
  }

  double inverse_rms(const Row& v) const {
    double squares = 0;
    for (double value : v) squares += value * value;
    return 1 / std::sqrt(squares / static_cast<double>(v.size()) + config_.rms_norm_eps);
  }
  Row rms_norm(Row v, const Row& gain) const {
    const double s = inverse_rms(v);
    for (std::size_t j = 0; j < v.size(); ++j) v[j] *= s * gain[j];
    return v;
  }
  Rows rms_norm(Rows rows, const std::string& gain) const {
    for (Row& row : rows) row = rms_norm(row, weight(gain));
    return rows;
  }
  Rows project(const Rows& x, const std::string& name) const {
    const Row& w = weight(name);
    const std::size_t in = x[0].size(), out = w.size() / in;
    Rows y(x.size(), Row(out, 0.0));
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t o = 0; o < out; ++o)
        for (std::size_t i = 0; i < in; ++i) y[t][o] += w[o * in + i] * x[t][i];
    return y;
  }
  static void add(Rows& p, const Rows& y) {
    for (std::size_t t = 0; t < p.size(); ++t)
      for (std::size_t j = 0; j < p[t].size(); ++j) p[t][j] += y[t][j];
  }

  /// One head's query or key at a position, normalised and rotated by halves.
  Row head_of(const Row& packed, std::size_t head, std::size_t position, const Row& gain) const {
    const std::size_t width_of_head = gain.size(), half = width_of_head / 2;
    const auto begin = packed.begin() + static_cast<std::ptrdiff_t>(head * width_of_head);
    Row q = rms_norm(Row(begin, begin + static_cast<std::ptrdiff_t>(width_of_head)), gain);
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) *
                           std::pow(config_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(2 * half));
      const double a = q[i], b = q[i + half];
      q[i] = a * std::cos(angle) - b * std::sin(angle);
      q[i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
    return q;
  }
  Rows attention(std::int64_t layer, const Rows& h) const {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const Rows x = rms_norm(h, name + "input_layernorm.weight");
    const Rows q = project(x, name + "self_attn.q_proj.weight"), k = project(x, name + "self_attn.k_proj.weight"),
               v = project(x, name + "self_attn.v_proj.weight");
    const Row &q_gain = weight(name + "self_attn.q_norm.weight"), &k_gain = weight(name + "self_attn.k_norm.weight");
    const auto heads = static_cast<std::size_t>(config_.num_attention_heads),
               shared = heads / static_cast<std::size_t>(config_.num_key_value_heads), dim = q_gain.size();
    Rows mixed(h.size(), Row(heads * dim, 0.0));
    for (std::size_t t = 0; t < h.size(); ++t) {
      const std::size_t first = t - t % positions_;
      for (std::size_t head = 0; head < heads; ++head) {
        const Row query = head_of(q[t], head, t - first, q_gain);
        Row score;
        double sum = 0;
        for (std::size_t s = first; s <= t; ++s) {
          const Row key = head_of(k[s], head / shared, s - first, k_gain);
          double dot = 0;
          for (std::size_t j = 0; j < dim; ++j) dot += query[j] * key[j];
          score.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
          sum += score.back();
        }
        for (std::size_t s = first; s <= t; ++s)
          for (std::size_t j = 0; j < dim; ++j)
            mixed[t][head * dim + j] += score[s - first] / sum * v[s][head / shared * dim + j];
      }
    }
    return project(mixed, name + "self_attn.o_proj.weight");
  }
  Rows mlp(std::int64_t layer, const Rows& h) const {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const Rows x = rms_norm(h, name + "post_attention_layernorm.weight");
    Rows act = project(x, name + "mlp.gate_proj.weight");
    const Rows up = project(x, name + "mlp.up_proj.weight");
    for (std::size_t t = 0; t < act.size(); ++t)
      for (std::size_t j = 0; j < act[t].size(); ++j) act[t][j] *= up[t][j] / (1 + std::exp(-act[t][j]));
    return project(act, name + "mlp.down_proj.weight");
  }

  Rows read(const std::string& prefix, const std::vector<Rows>& completed, const Rows& partial) {
    PlainRead r{reads_++, completed, Rows(partial.size())};
    r.values.push_back(partial);
    const Row &query = weight(prefix + "_proj.weight"), &gain = weight(prefix + "_norm.weight");
    const double bias = config_.has_learned_bias() ? weight(prefix + "_bias")[0]
                        : completed.empty()        ? 0.0
                                                   : config_.recency_bias;
    for (std::size_t t = 0; t < partial.size(); ++t) {
      double sum = 0;
      for (std::size_t i = 0; i < r.values.size(); ++i) {
        const Row key = rms_norm(r.values[i][t], gain);
        double logit = i + 1 == r.values.size() ? bias : 0.0;
        for (std::size_t j = 0; j < key.size(); ++j) logit += query[j] * key[j];
        r.alpha[t].push_back(std::exp(logit));
        sum += r.alpha[t].back();
      }
      for (double& alpha : r.alpha[t]) alpha /= sum;
    }
    return rule_ ? rule_(r) : r.mixture();
  }

  /// A read that is not routed.
  Rows whole(const Rows& p) {
    const int r = reads_++;
    return rule_ && every_read_ ? rule_({r, {p}, Rows(p.size(), Row{1.0})}) : p;
  }

  Rows standard(Rows p) {
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      add(p, attention(layer, whole(p)));
      add(p, mlp(layer, whole(p)));
    }
    return whole(p);
  }
  Rows block_sum(Rows p) {
    const bool full = config_.residual == model::Residual::full_attn_res;
    std::vector<Rows> completed;
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      for (const bool attn : {true, false}) {
        const Rows h = read(prefix + (attn ? "attn_res" : "mlp_res"), completed, p);
        if (full || (attn && layer % config_.layers_per_block() == 0)) {
          completed.push_back(p);
          p.assign(p.size(), Row(width(), 0.0));
        }
        add(p, attn ? attention(layer, h) : mlp(layer, h));
      }
    }
    return read("model.final_res", completed, p);
  }
  Rows cumulative(Rows p) {
    const bool full = config_.residual == model::Residual::full_attn_res;
    std::vector<Rows> completed{p};
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      for (const bool attn : {true, false}) {
        const Rows h = read(prefix + (attn ? "attn_res" : "mlp_res"), completed, p);
        add(p, attn ? attention(layer, h) : mlp(layer, h));
        if (full || (!attn && (layer + 1) % config_.layers_per_block() == 0)) completed.push_back(p);
      }
    }
    return whole(p);
  }

  model::ModelConfig config_;
  std::map<std::string, Row> weights_;
  std::size_t positions_ = 1;
  Rule rule_;
  bool every_read_ = false;
  int reads_ = 0;
};

}  // namespace routescope::testing
