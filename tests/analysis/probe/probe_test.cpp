// A probe is what one gets by masking, running everything again and subtracting; its short cuts change no bit.
#include "analysis/probe/probe.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <barrier>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "analysis/commands/tables.h"
#include "analysis/statistics/statistics.h"
#include "data/base/error.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/expect_error.h"

namespace routescope::analysis {
namespace {

using testing::micro_config;
using testing::micro_model;
using testing::micro_tokens;
using testing::probe_of;

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

class Probe : public ::testing::TestWithParam<Mode> {
 protected:
  model::Model model(const model::ModelOptions& options = {}) const {
    return testing::micro_model(testing::micro_config(GetParam().residual, GetParam().source), options);
  }
};

INSTANTIATE_TEST_SUITE_P(
    Modes, Probe,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
                      Mode{"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum},
                      Mode{"full_cumulative", model::Residual::full_attn_res, model::AttnResSource::cumulative}),
    [](const auto& mode) { return std::string(mode.param.name); });

/// Everything about one sequence under an intervention, from whole passes in double precision.
struct Plain {
  std::vector<double> log_p;  // [positions, vocab]
  double nll = 0;

  Plain(const model::Model& model, std::span<const std::int32_t> ids, const model::RoutingIntervention* intervention) {
    const auto positions = static_cast<std::int64_t>(ids.size()), vocab = model.config().vocab_size;
    model::Pass pass(model, 1, positions, model::Pass::Kind::infer);
    pass.forward(ids, intervention);
    kernels::OwnedTensor logits(kernels::DType::f64, kernels::Device::cpu, {positions, vocab});
    pass.logits(0, positions, logits.tensor);
    for (std::int64_t t = 0; t < positions; ++t) {
      const double* row = logits.tensor.as<double>() + t * vocab;
      double sum = 0;
      for (std::int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v]);
      for (std::int64_t v = 0; v < vocab; ++v) log_p.push_back(row[v] - std::log(sum));
    }
    for (std::int64_t t = 0; t + 1 < positions; ++t) {
      nll -= log_p[static_cast<std::size_t>(t * vocab + ids[static_cast<std::size_t>(t + 1)])] /
             static_cast<double>(positions - 1);
    }
  }
};

TEST_P(Probe, EqualsMaskingAndRunningEverythingAgain) {
  constexpr std::int64_t sequences = 3, positions = 12, vocab = 37;
  const ProbeTokens tokens = testing::micro_tokens(sequences, positions);
  const model::Model fast = model(), exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const ProbeRow row = probe_of(fast, tokens, {.seed = 1});
  // Logits of order 1 to 10 summed over 16 to 24 products a layer in f32: relative error below 1e-6 of them.
  constexpr double tolerance = 2e-5;

  const std::vector<Slice> slices = make_slices(exact.plan());
  int tested = 0;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    // The mask once more, from the plan alone.
    model::RoutingIntervention mask;
    mask.logit_bias.assign(exact.plan().reads.size(), std::vector<double>(exact.plan().columns.size(), 0.0));
    bool any = false;
    for (std::size_t r = 0; r < exact.plan().reads.size(); ++r) {
      const model::Read& read = exact.plan().reads[r];
      if (!read.routed || read.sublayer != slices[s].sublayer ||
          exact.plan().depth(static_cast<int>(r)) != slices[s].depth)
        continue;
      std::vector<double> bias = mask.logit_bias[r];
      std::size_t hidden = 0;
      for (int column : read.columns) {
        if (exact.plan().family(column) != slices[s].family) continue;
        bias[static_cast<std::size_t>(column)] = -INFINITY;
        ++hidden;
      }
      if (hidden == 0 || hidden == read.columns.size()) continue;
      mask.logit_bias[r] = bias;
      any = true;
    }
    EXPECT_EQ(any, !std::isnan(row.effects(Ablation::mask).sets[s].delta_nll.value)) << slice_name(s);
    if (!any) continue;
    ++tested;
    double kl = 0, agree = 0;
    for (std::int64_t q = 0; q < sequences; ++q) {
      const auto ids = std::span(tokens.ids).subspan(static_cast<std::size_t>(q * positions), positions);
      const Plain intact(exact, ids, nullptr), ablated(exact, ids, &mask);
      const auto at = static_cast<std::size_t>(q);
      EXPECT_NEAR(row.intact_nll_sequence[at], intact.nll, tolerance);
      EXPECT_NEAR(row.effects(Ablation::mask).sets[s].delta_nll_sequence[at], ablated.nll - intact.nll, tolerance)
          << slice_name(s);
      for (std::int64_t t = 0; t + 1 < positions; ++t) {
        const double *p = &intact.log_p[static_cast<std::size_t>(t * vocab)],
                     *q_ = &ablated.log_p[static_cast<std::size_t>(t * vocab)];
        for (std::int64_t v = 0; v < vocab; ++v) kl += std::exp(p[v]) * (p[v] - q_[v]);
        agree += std::max_element(p, p + vocab) - p == std::max_element(q_, q_ + vocab) - q_;
      }
    }
    EXPECT_NEAR(row.effects(Ablation::mask).sets[s].kl, kl / (sequences * (positions - 1)), tolerance) << slice_name(s);
    EXPECT_NEAR(row.effects(Ablation::mask).sets[s].top1_agreement, agree / (sequences * (positions - 1)), 1e-12)
        << slice_name(s);
    EXPECT_GT(row.effects(Ablation::mask).sets[s].kl, 10 * tolerance)
        << slice_name(s) << ": the mask does nothing, so this tests nothing";
  }
  EXPECT_GE(tested, 14);
}

TEST_P(Probe, InDoublePrecisionEqualsItToTheLastDigits) {
  const ProbeTokens tokens = testing::micro_tokens(2, 9);
  const model::Model exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const ProbeRow row = probe_of(exact, tokens);
  const std::vector<RouteSet> slices = slice_sets(exact.plan());
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const PreparedAblation mask = prepare_ablation(exact, Ablation::mask, whole(slices[s]), {}, {});
    if (mask.changed_reads.empty()) continue;
    for (std::size_t q = 0; q < 2; ++q) {
      const auto ids = std::span(tokens.ids).subspan(q * 9, 9);
      const double expected = Plain(exact, ids, &mask.intervention).nll - Plain(exact, ids, nullptr).nll;
      EXPECT_NEAR(row.effects(Ablation::mask).sets[s].delta_nll_sequence[q], expected, 1e-12) << slice_name(s);
    }
  }
}

const std::vector<Ablation> every_ablation = {Ablation::mask,     Ablation::zero,   Ablation::mean,
                                              Ablation::resample, Ablation::freeze, Ablation::patch};

/// Every number of two rows but what the measurement took.
void expect_same_bits(ProbeRow a, ProbeRow b) {
  a.cost = b.cost = {};
  EXPECT_EQ(testing::text_of(a), testing::text_of(b));
}

TEST_P(Probe, SharedPrefixesGiveTheSameBits) {
  const model::Model fast = model();
  const ProbeTokens tokens = testing::micro_tokens(3, 12), aligned = testing::micro_tokens(3, 12, 14);
  const ProbeIdentity identity = identify(
      fast.config(), tokens, {.seed = 3, .ablations = every_ablation, .controls = 2, .by_position = true}, aligned);
  const ProbeRow shared = probe(fast, identity, 7);
  const ProbeRow whole = probe(fast, identity, 7, *kernels::single_communicator(), {.share_prefix = false});
  expect_same_bits(shared, whole);
  EXPECT_EQ(whole.cost.computed, whole.cost.unshared);
  EXPECT_EQ(shared.cost.unshared, whole.cost.unshared);
  EXPECT_LT(shared.cost.computed, 0.8 * whole.cost.computed);
}

TEST_P(Probe, BatchesOfOneSequenceGiveTheSameNumbers) {
  const model::Model fast = model();
  const ProbeTokens tokens = testing::micro_tokens(5, 12), aligned = testing::micro_tokens(5, 12, 14);
  const ProbeIdentity identity = identify(fast.config(), tokens, {.ablations = every_ablation, .controls = 1}, aligned);
  const ProbeRow together = probe(fast, identity);
  const ProbeRow apart = probe(fast, identity, 0, *kernels::single_communicator(), {.batch_bytes = 1});
  // 5 sequences over a budget of 2.5: batches of 2, 2 and 1.
  const std::size_t half = 12 * sizeof(float) * 5 * (37 + 2 * fast.plan().reads.size() * 16) / 2;
  const ProbeRow uneven = probe(fast, identity, 0, *kernels::single_communicator(), {.batch_bytes = half});
  // Another batch size may take another path through a matrix product; its f32 sums then differ in their last bits.
  constexpr double tolerance = 1e-5;
  const auto expect_near = [&](const std::vector<double>& a, const std::vector<double>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(std::isnan(a[i]) ? std::isnan(b[i]) : std::abs(a[i] - b[i]) <= tolerance) << a[i] << ", " << b[i];
  };
  for (const ProbeRow* other : {&apart, &uneven}) {
    expect_near(together.intact_nll_sequence, other->intact_nll_sequence);
    expect_near(together.mass, other->mass);
    for (std::size_t a = 0; a < every_ablation.size(); ++a) {
      SCOPED_TRACE(to_string(every_ablation[a]));
      for (std::size_t s = 0; s < num_slices; ++s) {
        const SetEffect &found = other->ablations[a].sets[s], &expected = together.ablations[a].sets[s];
        expect_near(expected.delta_nll_sequence, found.delta_nll_sequence);
        expect_near(expected.control.delta_nll_sequence, found.control.delta_nll_sequence);
      }
    }
  }
}

/// Ranks as threads of this process, as far as a probe needs them.
class Threads {
 public:
  explicit Threads(int size) : size_(size), barrier_(size), texts_(static_cast<std::size_t>(size)) {}

  /// `body` on every rank at once.
  void run(const std::function<void(kernels::Communicator&)>& body) {
    std::vector<std::thread> threads;
    for (int r = 0; r < size_; ++r) {
      threads.emplace_back([&, r] {
        omp_set_num_threads(1);
        Rank rank(*this, {.rank = r, .size = size_, .local_rank = r});
        body(rank);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  class Rank final : public kernels::Communicator {
   public:
    Rank(Threads& all, const kernels::Place& place) : kernels::Communicator(place), all_(all) {}
    Ticket reduce_scatter(kernels::Tensor, kernels::Tensor, const kernels::Stream&, const std::string&) override {
      throw std::logic_error("sum");
    }
    Ticket all_gather(kernels::Tensor, kernels::Tensor, const kernels::Stream&, const std::string&) override {
      throw std::logic_error("gather");
    }
    void wait(Ticket, const kernels::Stream&) override {}
    void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override {
      ASSERT_EQ(reduction, kernels::Reduction::min);  // which is what agree() asks for
      const std::vector<std::string> all = exchange(std::to_string(values[0]), what);
      for (const std::string& value : all) values[0] = std::min(values[0], std::stod(value));
    }
    std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
      std::vector<std::string> all = exchange(bytes, what);
      return rank() == 0 ? all : std::vector<std::string>{};
    }
    std::string broadcast(const std::string& bytes, const std::string& what) override {
      return exchange(bytes, what)[0];
    }
    Traffic traffic() const override { return {}; }

   private:
    std::vector<std::string> exchange(const std::string& bytes, const std::string&) {
      all_.texts_[static_cast<std::size_t>(rank())] = bytes;
      all_.barrier_.arrive_and_wait();
      std::vector<std::string> out = all_.texts_;
      all_.barrier_.arrive_and_wait();
      return out;
    }
    Threads& all_;
  };

  int size_;
  std::barrier<> barrier_;
  std::vector<std::string> texts_;
};

TEST_P(Probe, RanksGiveTheBitsOfOneProcess) {
  const model::Model fast = model();
  const ProbeTokens tokens = testing::micro_tokens(5, 8), aligned = testing::micro_tokens(5, 8, 14);
  // One sequence at a time, so that every product has the same shape on any number of ranks.
  const ProbeIdentity identity = identify(
      fast.config(), tokens, {.seed = 2, .ablations = every_ablation, .controls = 1, .by_repeat = true}, aligned);
  const ProbeRow alone = probe(fast, identity, 9, *kernels::single_communicator(), {.batch_bytes = 1});
  for (int ranks : {2, 7}) {  // more ranks than sequences are too many, but no error
    SCOPED_TRACE(ranks);
    std::vector<ProbeRow> rows(static_cast<std::size_t>(ranks));
    Threads(ranks).run([&](kernels::Communicator& communicator) {
      rows[static_cast<std::size_t>(communicator.rank())] = probe(fast, identity, 9, communicator, {.batch_bytes = 1});
    });
    for (const ProbeRow& row : rows) expect_same_bits(row, alone);
  }
}

TEST_P(Probe, MassIsTheMeanOfAlpha) {
  const model::Model exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const ProbeTokens tokens = testing::micro_tokens(2, 10);
  const ProbeRow row = probe_of(exact, tokens);
  model::Pass pass(exact, 2, 10, model::Pass::Kind::infer);
  pass.forward(tokens.ids);
  std::vector<double> expected(num_slices, 0.0), reads(num_slices, 0.0);
  for (int r = 0; r < exact.plan().num_routed(); ++r) {
    const model::Read& read = exact.plan().reads[static_cast<std::size_t>(r)];
    if (read.sublayer == model::Sublayer::final) continue;
    const auto kind = static_cast<std::size_t>(read.sublayer) * 3 + static_cast<std::size_t>(exact.plan().depth(r));
    const kernels::Tensor alpha = pass.alpha(r);
    for (std::size_t f = 0; f < 3; ++f) reads[f * 6 + kind] += 1;
    for (std::int64_t t = 0; t < 20; ++t) {
      for (std::size_t i = 0; i < read.columns.size(); ++i) {
        const auto family = static_cast<std::size_t>(exact.plan().family(read.columns[i]));
        expected[family * 6 + kind] += alpha.as<double>()[t * alpha.shape[1] + static_cast<std::int64_t>(i)] / 20;
      }
    }
  }
  for (std::size_t s = 0; s < num_slices; ++s) EXPECT_NEAR(row.mass[s], expected[s] / reads[s], 1e-13) << slice_name(s);
}

TEST_P(Probe, AlphaVarianceAndMassesBySequenceArePlainSums) {
  const model::Model exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const ProbeTokens tokens = testing::micro_tokens(3, 10);
  const ProbeRow row = probe_of(exact, tokens, {.ablations = {}});
  const std::vector<RouteSet> sets = slice_sets(exact.plan());
  model::Pass pass(exact, 3, 10, model::Pass::Kind::infer);
  pass.forward(tokens.ids);
  std::vector<double> mass(num_slices * 3, 0.0);
  for (int r = 0; r < exact.plan().num_routed(); ++r) {
    const std::vector<int>& columns = exact.plan().reads[static_cast<std::size_t>(r)].columns;
    const std::vector<double> alpha = kernels::host_values<double>(pass.alpha(r), kernels::Stream{});
    const std::size_t n = columns.size();
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0, squares = 0;
      for (std::size_t t = 0; t < 30; ++t) sum += alpha[t * n + i] / 30;
      for (std::size_t t = 0; t < 30; ++t) squares += (alpha[t * n + i] - sum) * (alpha[t * n + i] - sum) / 30;
      const auto at = static_cast<std::size_t>(r * exact.plan().num_columns() + columns[i]);
      EXPECT_NEAR(row.alpha_mean[at], sum, 1e-14);
      EXPECT_NEAR(row.alpha_variance[at], squares, 1e-14);
      for (std::size_t s = 0; s < sets.size(); ++s) {
        const auto hits = std::count(sets[s].routes.begin(), sets[s].routes.end(), std::pair{r, columns[i]});
        for (std::size_t t = 0; t < 30; ++t)
          mass[s * 3 + t / 10] +=
              static_cast<double>(hits) * alpha[t * n + i] / 10 / static_cast<double>(sets[s].reads.size());
      }
    }
  }
  for (std::size_t i = 0; i < mass.size(); ++i) EXPECT_NEAR(row.mass_sequence[i], mass[i], 1e-13) << i;
}

TEST(ProbeMasks, MasksThatMaskNothingChangeNothing) {
  const model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  const ProbeTokens tokens = testing::micro_tokens(2, 12);
  std::vector<float> intact(24), masked(24);
  std::vector<std::int32_t> targets(tokens.ids.begin() + 1, tokens.ids.end());
  targets.push_back(-1);
  model::Pass pass(model, 2, 12, model::Pass::Kind::infer);
  pass.forward(tokens.ids);
  pass.nll(targets, intact);
  int empty = 0;
  for (const RouteSet& slice : slice_sets(model.plan())) {
    const PreparedAblation mask = prepare_ablation(model, Ablation::mask, whole(slice), {}, {});
    pass.forward(tokens.ids, &mask.intervention);
    pass.nll(targets, masked);
    const bool same = std::memcmp(intact.data(), masked.data(), sizeof(float) * intact.size()) == 0;
    EXPECT_EQ(same, mask.changed_reads.empty()) << slice.name;
    empty += mask.changed_reads.empty();
  }
  EXPECT_GT(empty, 0);
}

TEST(ProbeRows, SummariesFollowFromTheSequences) {
  const model::Model model =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::cumulative));
  const ProbeRow row = probe_of(model, testing::micro_tokens(6, 10), {.seed = 5}, 40);
  for (std::size_t s = 0; s < num_slices; ++s) {
    const SetEffect& effect = row.effects(Ablation::mask).sets[s];
    const std::vector<double>& values = effect.delta_nll_sequence;
    ASSERT_EQ(values.size(), 6U);
    if (!(effect.coverage > 0)) {
      EXPECT_TRUE(std::isnan(effect.delta_nll.value) && std::isnan(effect.kl) && std::isnan(effect.p_adjusted));
      continue;
    }
    EXPECT_DOUBLE_EQ(effect.delta_nll.value, mean(values));
    EXPECT_EQ(effect.delta_nll.ci.lower, bootstrap_interval(values, {5, 40, s}).lower);
    EXPECT_EQ(effect.p_value, sign_flip_test(values, {5, 40, s}));
    EXPECT_GE(effect.p_adjusted, effect.p_value);
  }
  EXPECT_DOUBLE_EQ(row.intact_nll, mean(row.intact_nll_sequence));
}

TEST(ProbeErrors, NameWhatIsWrong) {
  const model::Model standard =
      testing::micro_model(testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum));
  EXPECT_NE(
      data::error_of([&] { probe_of(standard, testing::micro_tokens(1, 4)); }).find("'standard': it has no reads"),
      std::string::npos);
  const model::Model routed =
      testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  EXPECT_NE(data::error_of([&] {
              probe_of(routed, testing::micro_tokens(1, 1));
            }).find("expected at least one of at least two"),
            std::string::npos);
  ProbeTokens beyond = testing::micro_tokens(2, 4);
  beyond.ids[5] = 37;
  EXPECT_NE(data::error_of([&] { probe_of(routed, beyond); }).find("token 5: found id 37, expected 0 to 36"),
            std::string::npos);
}

}  // namespace
}  // namespace routescope::analysis
