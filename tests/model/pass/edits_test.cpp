// Edits of reads: a Pass computes what plain loops in double precision compute, keeps nothing afterwards, and refuses
// what does not fit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/pass/pass.h"
#include "tests/model/pass/edit_cases.h"
#include "tests/model/pass/micro.h"

namespace routescope::testing {
namespace {

constexpr std::int64_t kBatch = 2, kLength = 6;

/// In single precision as wide as pass_test.cpp explains.
model::ModelConfig wide_enough(const micro::Mode& mode, kernels::DType dtype) {
  model::ModelConfig config = micro::config(mode);
  if (dtype == kernels::DType::f64) return config;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.head_dim = 16;
  config.initializer_range = 0.2;
  return config;
}

struct Variant {
  micro::Mode mode;
  kernels::DType dtype;
  model::ReadPhases phases;
};

template <class Wanted>
std::vector<Variant> variants(Wanted wanted) {
  std::vector<Variant> out;
  for (const micro::Mode& mode : micro::modes())
    for (const kernels::DType dtype : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16})
      for (const model::ReadPhases phases : {model::ReadPhases::fused, model::ReadPhases::two})
        if (const Variant v{mode, dtype, phases}; mode.residual != model::Residual::standard && wanted(v))
          out.push_back(v);
  return out;
}

class Edits : public ::testing::TestWithParam<Variant> {
 protected:
  model::ModelConfig config = wide_enough(GetParam().mode, GetParam().dtype);
  std::vector<std::int32_t> ids = micro::tokens(kBatch * kLength, config.vocab_size, 3);
  model::Model model = [this] {
    const kernels::DType dtype = GetParam().dtype;
    model::Model out(config,
                     {.storage = dtype == kernels::DType::bf16 ? kernels::DType::f32 : dtype, .operands = dtype});
    micro::randomize(out, 5, 0.2);  // an edit may leave little of h: sharper weights would magnify f32's roundings
    return out;
  }();
  model::Pass pass_of(model::Pass::Kind kind) const {
    return {model, kBatch, kLength, kind, {.reads = GetParam().phases}};
  }
  model::Pass pass = pass_of(model::Pass::Kind::infer);
  int routed = model.plan().num_routed();
  /// The first, the last, one whose partial is among its sources in `cumulative`, and one inside a block.
  std::vector<int> some_reads{0, 4, 7, routed - 1};

  std::vector<float> nll(model::Pass& of) const {
    std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    for (std::size_t t = kLength - 1; t < targets.size(); t += kLength) targets[t] = -1;
    std::vector<float> out(ids.size());
    of.nll(targets, out);
    return out;
  }
  std::vector<float> nll() { return nll(pass); }
};

class UnroundedEdits : public Edits {};  // plain loops do not round operands
class FusedEdits : public Edits {};      // two phases end with other roundings than one

/// Of the sequence where it is largest: |difference| a token.
double difference(const std::vector<float>& found, const std::vector<double>& expected) {
  double worst = 0;
  for (std::size_t begin = 0; begin < found.size(); begin += kLength) {
    double sum = 0;
    for (std::size_t t = begin; t + 1 < begin + kLength; ++t)
      sum += std::abs(static_cast<double>(found[t]) - expected[t]) / (kLength - 1);
    worst = std::max(worst, sum);
  }
  return worst;
}

TEST_P(UnroundedEdits, EqualPlainLoops) {
  // nll comes out in f32, of up to 8 nats: roundings of 2^-22. In f32 all through: what every ablation is to keep to.
  const double tolerance = GetParam().dtype == kernels::DType::f64 ? 5e-7 : 1e-5;
  PlainModel plain(model);
  const std::vector<double> intact = plain.nll(ids, kLength);
  pass.forward(ids);
  EXPECT_LT(difference(nll(), intact), tolerance) << "intact";
  for (std::size_t which : {0, 1, 2}) {
    for (const EditCase& edit : edit_cases(model, some_reads, which)) {
      pass.forward(ids, &edit.intervention);
      const std::vector<double> expected = plain.nll(ids, kLength, edit.rule);
      EXPECT_LT(difference(nll(), expected), tolerance) << edit.name << ", source " << which;
      double change = 0;
      for (std::size_t t = 0; t < intact.size(); ++t) change = std::max(change, std::abs(expected[t] - intact[t]));
      if (edit.name != "keep") {
        EXPECT_GT(change, 100 * tolerance) << edit.name << " changes nothing, source " << which;
      }
    }
  }
}

TEST_P(FusedEdits, EqualGivenWeightsToTheBit) {
  for (const EditCase& edit : edit_cases(model, {5}, 1)) {
    if (!edit.intervention.edits.at(5).extra.empty()) continue;
    pass.forward(ids);
    const std::vector<float> intact = nll();
    const std::vector<double> alpha = kernels::host_values<double>(pass.alpha(5), pass.stream());
    std::vector<double> edited(alpha.size());
    edit.intervention.edits.at(5).alpha(alpha, edited);
    kernels::OwnedTensor given(model.options().storage, kernels::Device::cpu,
                               {kBatch * kLength, static_cast<std::int64_t>(edited.size()) / (kBatch * kLength)});
    kernels::cast(given.tensor,
                  kernels::Tensor(edited.data(), kernels::DType::f64, kernels::Device::cpu, {given.tensor.numel()}),
                  kernels::Stream{});
    model::RoutingIntervention override;
    override.alpha_override[5] = given.tensor;
    pass.forward(ids, &override);
    const std::vector<float> expected = nll();
    pass.forward(ids, &edit.intervention);
    EXPECT_EQ(nll(), expected) << edit.name;
    EXPECT_EQ(expected == intact, edit.name == "keep") << edit.name;
  }
}

TEST_P(Edits, AnExtraStandsForASourceOfTheSameValue) {
  // Every token is the same one, so that the embedding, every read's source 0 from read 1 on, is one row for all.
  std::fill(ids.begin(), ids.end(), 7);
  const int r = routed - 1;
  model::RoutingIntervention moved, same;
  const auto n = model.plan().reads[static_cast<std::size_t>(r)].columns.size();
  pass.forward(ids);
  const kernels::Tensor row = pass.partial(0).rows(0, 1);
  kernels::OwnedTensor embedding(row.dtype, kernels::Device::cpu, {config.hidden_size});
  kernels::copy(embedding.tensor, row.view({config.hidden_size}), kernels::Stream{});
  const auto edit = [n](bool move) {
    return [n, move](std::span<const double> alpha, std::span<double> edited) {
      for (std::size_t t = 0; t < alpha.size() / n; ++t) {
        for (std::size_t i = 0; i < n; ++i) edited[t * (n + 1) + i] = alpha[t * n + i];
        edited[t * (n + 1) + n] = 0;
        if (move) std::swap(edited[t * (n + 1)], edited[t * (n + 1) + n]);
      }
    };
  };
  moved.edits[r] = {.extra = {{embedding.tensor}}, .alpha = edit(true)};
  same.edits[r] = {.extra = {{embedding.tensor}}, .alpha = edit(false)};
  pass.forward(ids, &same);
  const std::vector<float> expected = nll();
  pass.forward(ids, &moved);
  const std::vector<float> found = nll();
  // Another order of one sum; with bf16 operands a rounding of x may fall to the other side.
  const double tolerance = GetParam().dtype == kernels::DType::f64   ? 5e-7
                           : GetParam().dtype == kernels::DType::f32 ? 1e-5
                                                                     : 2e-2;
  for (std::size_t t = 0; t < found.size(); ++t) EXPECT_NEAR(found[t], expected[t], tolerance);
}

TEST_P(Edits, ResumedPassEqualsWholePassAndLeavesNothingBehind) {
  model::Pass shared = pass_of(model::Pass::Kind::infer), whole = pass_of(model::Pass::Kind::infer);
  // A resumed pass prepares reads from the read where it resumes.
  const bool reordered = GetParam().phases == model::ReadPhases::two;
  const auto expect_same = [&](const std::vector<float>& a, const std::vector<float>& b, int r, const char* what) {
    for (std::size_t t = 0; t < a.size(); ++t)
      EXPECT_NEAR(a[t], b[t], reordered ? (GetParam().dtype == kernels::DType::bf16 ? 2e-2 : 1e-5) : 0)
          << what << ", read " << r;
  };
  shared.forward(ids);
  const std::vector<float> intact = nll(shared);
  for (int r = routed - 1; r > 0; r -= 2) {
    const std::vector<double> alpha = kernels::host_values<double>(shared.alpha(r), shared.stream());
    for (const EditCase& edit : edit_cases(model, {r}, 0)) {
      if (edit.name != "zero" && edit.name != "replace") continue;
      shared.forward(ids, &edit.intervention, r);
      // The weights that the read computed, not the edited ones.
      const std::vector<double> own = kernels::host_values<double>(shared.alpha(r), shared.stream());
      for (std::size_t i = 0; i < own.size(); ++i) EXPECT_NEAR(own[i], alpha[i], reordered ? 1e-5 : 0);
      whole.forward(ids, &edit.intervention);
      expect_same(nll(shared), nll(whole), r, "edited");
      EXPECT_NE(nll(shared), intact) << r;
      shared.forward(ids, nullptr, r);
      expect_same(nll(shared), intact, r, "intact again");
    }
  }
}

TEST_P(Edits, ChangeNothingOfTrainingThatFollows) {
  model::Pass plain = pass_of(model::Pass::Kind::train), edited = pass_of(model::Pass::Kind::train);
  const std::vector<std::int32_t> targets = micro::tokens(kBatch * kLength, config.vocab_size, 4);
  const auto gradient = [&](model::Pass& of) {
    kernels::OwnedTensor out(model.options().storage, kernels::Device::cpu, {model.layout().total()});
    of.backward(targets, 0.5, out.tensor);
    return kernels::host_values<double>(out.tensor, of.stream());
  };
  const EditCase edit = std::move(edit_cases(model, {3}, 0)[2]);
  edited.forward(ids, &edit.intervention);
  EXPECT_THROW(gradient(edited), std::logic_error);
  edited.forward(ids, nullptr, 4);  // keeps what the edited read computed
  EXPECT_THROW(gradient(edited), std::logic_error);
  edited.forward(ids, nullptr, 3);
  plain.forward(ids);
  if (GetParam().phases == model::ReadPhases::fused) {
    EXPECT_EQ(gradient(edited), gradient(plain));
  }
  edited.forward(ids, &edit.intervention);
  edited.forward(ids);
  EXPECT_EQ(gradient(edited), gradient(plain));
}

std::string variant_name(const ::testing::TestParamInfo<Variant>& info) {
  const Variant& v = info.param;
  const char* dtype = v.dtype == kernels::DType::f64 ? "_f64" : v.dtype == kernels::DType::f32 ? "_f32" : "_bf16";
  return v.mode.name + dtype + (v.phases == model::ReadPhases::two ? "_two" : "");
}

bool any(const Variant&) {
  return true;
}
bool is_unrounded(const Variant& v) {
  return v.dtype != kernels::DType::bf16;
}
bool is_fused(const Variant& v) {
  return v.phases == model::ReadPhases::fused;
}

INSTANTIATE_TEST_SUITE_P(Variants, Edits, ::testing::ValuesIn(variants(any)), variant_name);
INSTANTIATE_TEST_SUITE_P(Variants, UnroundedEdits, ::testing::ValuesIn(variants(is_unrounded)), variant_name);
INSTANTIATE_TEST_SUITE_P(Variants, FusedEdits, ::testing::ValuesIn(variants(is_fused)), variant_name);

class Gradients : public ::testing::TestWithParam<micro::Mode> {};

TEST_P(Gradients, OfLogitsSumToThoseOfTheirBiases) {
  const model::ModelConfig config = micro::config(GetParam());
  model::Model model(config, {.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  micro::randomize(model, 7);
  const auto ids = micro::tokens(kBatch * kLength, config.vocab_size, 11),
             targets = micro::tokens(kBatch * kLength, config.vocab_size, 12);
  model::Pass pass(model, kBatch, kLength, model::Pass::Kind::train);
  kernels::OwnedTensor ignored(kernels::DType::f64, kernels::Device::cpu, {model.layout().total()});
  pass.forward(ids);
  pass.backward(targets, 2.0, ignored.tensor);
  double worst = 0, largest = 0;
  for (int r = 0; r < model.plan().num_routed(); ++r) {
    const kernels::Tensor dlogit = pass.dlogit(r);
    const std::vector<int>& columns = model.plan().reads[static_cast<std::size_t>(r)].columns;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      double sum = 0;
      for (std::int64_t t = 0; t < dlogit.shape[0]; ++t)
        sum += dlogit.as<double>()[t * dlogit.shape[1] + static_cast<std::int64_t>(i)];
      model::Pass shifted(model, kBatch, kLength, model::Pass::Kind::infer);
      const auto at = [&](double bias) {
        model::RoutingIntervention intervention;
        intervention.logit_bias.assign(model.plan().reads.size(),
                                       std::vector<double>(static_cast<std::size_t>(model.plan().num_columns()), 0.0));
        intervention.logit_bias[static_cast<std::size_t>(r)][static_cast<std::size_t>(columns[i])] = bias;
        shifted.forward(ids, &intervention);
        return shifted.loss(targets);
      };
      const double step = 1e-4;  // fourth order, as in gradient_test.cpp
      const double slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      worst = std::max(worst, std::abs(sum - 2.0 * slope));
      largest = std::max(largest, std::abs(sum));
    }
  }
  std::printf("largest error %.1e of gradients up to %.1e\n", worst, largest);
  EXPECT_LT(worst, 1e-8 * largest);
}

INSTANTIATE_TEST_SUITE_P(Modes, Gradients, ::testing::ValuesIn(micro::modes().begin() + 1, micro::modes().end()),
                         [](const auto& p) { return p.param.name; });

TEST_P(Edits, OfEachSequenceAreThoseOfPassesOfOneSequence) {
  if (GetParam().phases != model::ReadPhases::fused) {
    const std::vector<model::RoutingIntervention> nothing(kBatch);
    EXPECT_THROW(pass.forward_each(ids, nothing), std::invalid_argument);
    return;
  }
  const auto columns = static_cast<std::size_t>(model.plan().num_columns());
  const int edited = routed - 1, masked = routed / 2;
  std::vector<model::RoutingIntervention> each(kBatch);
  for (std::int64_t q = 0; q < kBatch; ++q) {
    model::RoutingIntervention& one = each[static_cast<std::size_t>(q)];
    one.logit_bias.assign(static_cast<std::size_t>(routed), std::vector<double>(columns, 0.0));
    one.logit_bias[static_cast<std::size_t>(masked)][static_cast<std::size_t>(q)] = -2;
    if (q == 0) continue;  // the first sequence has no edit
    one.edits[edited].alpha = [](std::span<const double> alpha, std::span<double> weights) {
      EXPECT_EQ(alpha.size() % kLength, 0U);
      for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = (i % 3 == 0 ? 2 : 0.5) * alpha[i];
    };
  }
  const auto logits_of = [&](model::Pass& of, std::int64_t tokens) {
    const kernels::OwnedTensor out(model.options().activations(), kernels::Device::cpu, {tokens, config.vocab_size});
    of.logits(0, tokens, out.tensor);
    return kernels::host_values<double>(out.tensor, of.stream());
  };
  pass.forward_each(ids, each);
  const std::vector<double> found = logits_of(pass, kBatch * kLength);
  pass.forward(ids);
  const std::vector<double> intact = logits_of(pass, kBatch * kLength);
  pass.forward_each(ids, each, masked);
  EXPECT_EQ(logits_of(pass, kBatch * kLength), found);  // resumed at the first read that differs
  model::Pass alone(model, 1, kLength, model::Pass::Kind::infer, {.reads = model::ReadPhases::fused});
  const std::size_t size = static_cast<std::size_t>(kLength * config.vocab_size);
  const double rounding = GetParam().dtype == kernels::DType::f64   ? 1e-12
                          : GetParam().dtype == kernels::DType::f32 ? 1e-4
                                                                    : 0.1;
  for (std::int64_t q = 0; q < kBatch; ++q) {
    alone.forward(std::span(ids).subspan(static_cast<std::size_t>(q * kLength), kLength),
                  &each[static_cast<std::size_t>(q)]);
    const std::vector<double> expected = logits_of(alone, kLength);
    double changed = 0;
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_NEAR(found[static_cast<std::size_t>(q) * size + i], expected[i], rounding);
      changed = std::max(changed, std::abs(found[static_cast<std::size_t>(q) * size + i] -
                                           intact[static_cast<std::size_t>(q) * size + i]));
    }
    EXPECT_GT(changed, GetParam().dtype == kernels::DType::bf16 ? 0.005 : 10 * rounding) << q;
  }
  EXPECT_THROW(pass.forward_each(ids, std::span(each).first(1)), std::invalid_argument);
  model::Pass training = pass_of(model::Pass::Kind::train);
  EXPECT_THROW(training.forward_each(ids, each), std::invalid_argument);
}

/// The message of std::invalid_argument that a forward pass with this edit of read `r` ends with, or "".
std::string refusal(int r, const model::ReadEdit& edit) {
  model::Model model(micro::config(micro::modes()[2]), {});  // cumulative: read 8, the final one, is not routed
  model.initialize(1);
  model::Pass pass(model, 1, 4, model::Pass::Kind::infer);
  model::RoutingIntervention intervention;
  intervention.edits[r] = edit;
  try {
    pass.forward(std::vector<std::int32_t>{0, 1, 2, 3}, &intervention);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(EditsThatDoNotFit, AreRefused) {
  const kernels::OwnedTensor fits(kernels::DType::f32, kernels::Device::cpu, {8}),
      wide_one(kernels::DType::f32, kernels::Device::cpu, {9}),
      other_type(kernels::DType::bf16, kernels::Device::cpu, {8});
  const auto keep = [](std::span<const double> alpha, std::span<double> edited) {
    std::fill(edited.begin(), edited.end(), 0.0);
    for (std::size_t i = 0; i < std::min(alpha.size(), edited.size()); ++i) edited[i] = alpha[i];
  };
  const auto extra = [&](std::vector<model::ExtraValue> values) {
    return model::ReadEdit{std::move(values), {}, keep};
  };
  EXPECT_EQ(refusal(3, extra({{fits.tensor}})), "");
  EXPECT_EQ(refusal(3, extra({{{}, 1, {3, 2, 1, 0}}})), "");
  EXPECT_EQ(refusal(8, extra({{fits.tensor}})), "");
  EXPECT_EQ(refusal(8, extra({{{}, 0, {3, 2, 1, 0}}})), "edits: read final is not routed: expected a table");
  EXPECT_EQ(refusal(8, {{}, [](std::span<double>) {}, {}}), "edits: read final is not routed: it has no logits");
  EXPECT_EQ(refusal(9, extra({})), "edits: read 9, expected one of the 9 reads");
  EXPECT_EQ(refusal(-1, extra({})), "edits: read -1, expected one of the 9 reads");
  EXPECT_EQ(refusal(3, {}), "edits: read 1.mlp has no function for its weights");
  EXPECT_EQ(refusal(3, {{{fits.tensor}}, [](std::span<double>) {}, {}}),
            "edits: read 1.mlp has no function for its weights");
  EXPECT_EQ(refusal(3, extra({{fits.tensor}, {wide_one.tensor}})),
            "edits: read 1.mlp, extra 1: found 9 f32 on the CPU, expected rows of 8 f32 on the CPU");
  EXPECT_EQ(refusal(3, extra({{other_type.tensor}})),
            "edits: read 1.mlp, extra 0: found 8 bf16 on the CPU, expected rows of 8 f32 on the CPU");
  const std::string expected = ", expected a table or rows of one of the read's sources";
  EXPECT_EQ(refusal(3, extra({{}})), "edits: read 1.mlp, extra 0: found nothing" + expected);
  EXPECT_EQ(refusal(3, extra({{{}, 0, {}}})), "edits: read 1.mlp, extra 0: found a source without rows" + expected);
  EXPECT_EQ(refusal(3, extra({{{}, 9, {0, 0, 0, 0}}})),
            "edits: read 1.mlp, extra 0: found source 9, of which it has 2" + expected);
  EXPECT_EQ(refusal(3, extra({{fits.tensor, -1, {0, 0, 1, 0}}})),
            "edits: read 1.mlp, extra 0: found row 1, expected 0 to 0");
  EXPECT_EQ(refusal(3, extra({{fits.tensor, -1, {0, 0}}})), "edits: read 1.mlp, extra 0: found 2 rows, expected 4");
}

}  // namespace
}  // namespace routescope::testing
