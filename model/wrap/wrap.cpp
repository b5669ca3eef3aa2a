#include "model/wrap/wrap.h"

#include <algorithm>
#include <cmath>

#include "data/base/error.h"
#include "model/pass/pass.h"

namespace routescope::model {

ModelConfig wrapped_config(const ModelConfig& standard, Residual residual, std::int64_t num_blocks, double bias) {
  if (standard.routed())
    throw data::Error("wrap: residual: found {}, expected a standard model", to_string(standard.residual));
  if (residual == Residual::standard)
    throw data::Error("wrap: residual: found standard, expected block_attn_res or full_attn_res");
  ModelConfig config = standard;
  config.residual = residual;
  config.source = AttnResSource::cumulative;
  config.num_blocks = num_blocks;
  config.recency_bias = bias;
  config.validate("wrap");
  return config;
}

Model wrap(const Model& standard, Residual residual, std::int64_t num_blocks, double bias) {
  Model model(wrapped_config(standard.config(), residual, num_blocks, bias), standard.options());
  model.initialize(0);  // queries zero, gains one, biases b; every other parameter is copied over what was drawn
  for (const ParameterInfo& info : standard.layout().all()) {
    const kernels::Tensor to = model.parameter(info.name), from = standard.parameter(info.name);
    kernels::cast(to, from, kernels::Stream{.device = standard.options().device});
  }
  model.refresh_operands();
  return model;
}

WrappedAlpha wrapped_alpha(double bias, std::int64_t n) {
  const double others = static_cast<double>(n - 1);
  // Divided through by e^b, so that a large b does not overflow.
  const double current = 1.0 / (1.0 + others * std::exp(-bias));
  return {current, n > 1 ? (1.0 - current) / others : 0.0};
}

WrapComparison compare_wrapped(const Model& wrapped, const Model& standard, const TokenBatch& tokens) {
  WrapComparison out;
  const std::int64_t t = tokens.seq_len, vocab = standard.config().vocab_size;
  Pass a(wrapped, 1, t, Pass::Kind::infer), b(standard, 1, t, Pass::Kind::infer);
  std::vector<double> logits_a(static_cast<std::size_t>(t * vocab)), logits_b(logits_a.size());
  double difference = 0, largest = 0;
  std::vector<float> nll(static_cast<std::size_t>(t));
  for (std::int64_t s = 0; s < tokens.sequences; ++s) {
    const std::vector<std::int32_t> ids = tokens.sequence(s), targets = tokens.targets(s);
    for (auto [pass, logits, sum] : {std::tuple{&a, &logits_a, &out.nll_wrapped}, {&b, &logits_b, &out.nll_standard}}) {
      pass->forward(ids);
      pass->logits(0, t, kernels::Tensor(logits->data(), kernels::DType::f64, kernels::Device::cpu, {t, vocab}));
      pass->nll(targets, nll);
      for (float value : nll) *sum += static_cast<double>(value);
    }
    for (std::size_t i = 0; i < logits_a.size(); ++i) {
      difference = std::max(difference, std::abs(logits_a[i] - logits_b[i]));
      largest = std::max(largest, std::abs(logits_b[i]));
    }
    for (int r = 0; r < wrapped.plan().num_routed(); ++r) {
      const std::vector<double> alpha = kernels::host_values<double>(a.alpha(r), a.stream());
      const auto n = static_cast<std::size_t>(a.alpha(r).shape[1]);
      const WrappedAlpha closed = wrapped_alpha(wrapped.config().recency_bias, static_cast<std::int64_t>(n));
      for (std::size_t i = 0; i < alpha.size(); ++i)
        out.alpha_error =
            std::max(out.alpha_error, std::abs(alpha[i] - (i % n == n - 1 ? closed.current : closed.other)));
    }
  }
  const double predicted = static_cast<double>(tokens.sequences * std::max<std::int64_t>(t - 1, 1));
  out.logit_difference = difference / largest;
  out.nll_wrapped /= predicted;
  out.nll_standard /= predicted;
  return out;
}

}  // namespace routescope::model
