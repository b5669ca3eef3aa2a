// The whole hand-written backward pass against finite differences, in double precision, for every residual mode.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "model/pass/pass.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

constexpr std::int64_t kBatch = 2, kLength = 5;

struct Variant {
  micro::Mode mode;
  bool tied = true;
  bool masked = false;
  bool given_alpha = false;
  std::string name() const {
    return mode.name + (tied ? "" : "_untied") + (masked ? "_masked" : "") + (given_alpha ? "_given_alpha" : "");
  }
};

std::vector<Variant> variants() {
  std::vector<Variant> out;
  for (const micro::Mode& mode : micro::modes()) out.push_back({mode});
  out.push_back({micro::modes()[1], false});
  out.push_back({micro::modes()[1], true, true});
  out.push_back({micro::modes()[2], true, true});
  out.push_back({micro::modes()[1], true, false, true});
  out.push_back({micro::modes()[2], true, false, true});
  return out;
}

/// An intervention, and the tensors that it refers to.
struct Given {
  RoutingIntervention intervention;
  std::vector<kernels::OwnedTensor> alpha;
};

Given given(const Variant& variant, const ReadPlan& plan) {
  Given out;
  if (variant.masked) {
    for (const Read& read : plan.reads) {
      if (!read.routed) continue;
      out.intervention.logit_bias.emplace_back(static_cast<std::size_t>(plan.num_columns()), 0.25);
      if (read.sources.size() > 1) out.intervention.logit_bias.back()[1] = -INFINITY;
    }
  }
  if (variant.given_alpha) {
    for (int r : {3, 5}) {
      const auto n = static_cast<std::int64_t>(plan.reads[static_cast<std::size_t>(r)].columns.size());
      out.alpha.emplace_back(kernels::DType::f64, kernels::Device::cpu,
                             std::initializer_list<std::int64_t>{kBatch * kLength, n});
      for (std::int64_t i = 0; i < kBatch * kLength * n; ++i)
        out.alpha.back().tensor.as<double>()[i] = 0.1 + 0.05 * static_cast<double>(i % 7);
      out.intervention.alpha_override[r] = out.alpha.back().tensor;
    }
  }
  return out;
}

/// The largest difference of `gradient` from finite differences of `loss` over at least 40 elements of a parameter,
/// relative to the largest gradient among them. A gradient that is zero by construction has the rounding floor instead.
double relative_error(kernels::Tensor parameter, const double* gradient, const std::function<double()>& loss) {
  double largest = 0, error = 0;
  const std::int64_t size = parameter.numel(), stride = std::max<std::int64_t>(1, size / 40);
  for (std::int64_t i = 0; i < size; i += stride) {
    double& value = parameter.as<double>()[i];
    const double original = value, step = 1e-5;
    const auto at = [&](double offset) {
      value = original + offset;
      return loss();
    };
    // Fourth order: the truncation error is step^4, so that only rounding is left (about 1e-16 / step).
    const double difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
    value = original;
    error = std::max(error, std::abs(difference - gradient[i]));
    largest = std::max({largest, std::abs(gradient[i]), std::abs(difference)});
  }
  return error / std::max(largest, 1e-4);
}

class ModelGradient : public ::testing::TestWithParam<Variant> {};

TEST_P(ModelGradient, EqualsFiniteDifferences) {
  const Variant& variant = GetParam();
  ModelConfig config = micro::config(variant.mode);
  config.tie_word_embeddings = variant.tied;
  Model model(config, {.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  micro::randomize(model, 7);
  const auto ids = micro::tokens(kBatch * kLength, config.vocab_size, 11);
  auto targets = micro::tokens(kBatch * kLength, config.vocab_size, 12);
  targets[3] = -1;  // a position that is not predicted
  const double scale = 1.0 / static_cast<double>(targets.size() - 1);
  const Given change = given(variant, model.plan());

  Pass pass(model, kBatch, kLength, Pass::Kind::train);
  kernels::OwnedTensor gradient(kernels::DType::f64, kernels::Device::cpu, {model.layout().total()});
  pass.forward(ids, &change.intervention);
  pass.backward(targets, scale, gradient.tensor);

  double worst = 0;
  std::string worst_name;
  for (const ParameterInfo& info : model.layout().all()) {
    const double error = relative_error(model.parameter(info.name), gradient.tensor.as<double>() + info.offset, [&] {
      pass.forward(ids, &change.intervention);
      return scale * pass.loss(targets);
    });
    if (error > worst) {
      worst = error;
      worst_name = info.name;
    }
  }
  RecordProperty("largest_relative_error", std::to_string(worst));
  std::printf("%s: largest relative error %.2e (%s)\n", variant.name().c_str(), worst, worst_name.c_str());
  EXPECT_LT(worst, 1e-6) << worst_name;
}

INSTANTIATE_TEST_SUITE_P(Modes, ModelGradient, ::testing::ValuesIn(variants()),
                         [](const auto& parameter) { return parameter.param.name(); });

}  // namespace
}  // namespace routescope::model
