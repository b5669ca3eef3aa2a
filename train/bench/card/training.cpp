#include "train/bench/card/training.h"

#include <exception>
#include <memory>
#include <vector>

#include "kernels/device.h"
#include "train/bench/step/subject.h"

namespace routescope::train {

namespace {

model::ModelConfig standard_of(const model::ModelConfig& routed) {
  model::ModelConfig config = routed;
  config.residual = model::Residual::standard;
  return config;
}

/// The first level, from bench.pass.recompute on, at which both models fit into the device's free memory; the last
/// level if none does.
model::Recompute fitting_level(const StepBench& bench) {
  // The rest is left to the libraries.
  const double free_bytes = 0.97 * static_cast<double>(kernels::device_info().free_bytes);
  for (const model::Recompute level :
       {model::Recompute::none, model::Recompute::swiglu, model::Recompute::norms, model::Recompute::attention}) {
    if (level < bench.pass.recompute) continue;
    model::PassOptions pass = bench.pass;
    pass.recompute = level;
    std::size_t bytes = 0;
    for (const model::ModelConfig& config : {standard_of(bench.model), bench.model})
      bytes += training_bytes(config, bench.options, bench.batch, bench.sequence_length, pass);
    if (static_cast<double>(bytes) <= free_bytes) return level;
  }
  return model::Recompute::attention;
}

std::unique_ptr<Subject> make_subject(const StepBench& bench, const model::ModelConfig& config,
                                      const model::PassOptions& pass, StepSpeed& speed) {
  const std::size_t free_before = kernels::device_info().free_bytes;
  auto subject = std::make_unique<Subject>(config, bench.options, bench.batch, bench.sequence_length, pass);
  const std::size_t free_after = kernels::device_info().free_bytes;
  speed.device_bytes = free_before > free_after ? free_before - free_after : 0;
  speed.bytes = training_bytes(config, bench.options, bench.batch, bench.sequence_length, pass);
  return subject;
}

}  // namespace

StepComparison compare_steps(const StepBench& bench) {
  StepComparison result;
  try {
    model::PassOptions pass = bench.pass;
    pass.recompute = result.recompute = fitting_level(bench);
    const auto standard = make_subject(bench, standard_of(bench.model), pass, result.standard);
    const auto routed = make_subject(bench, bench.model, pass, result.routed);

    const std::int64_t sequences = bench.batch * bench.accumulate;
    const data::TokenStream stream = random_stream(bench.model.vocab_size, 4 * bench.batch * bench.sequence_length + 1);
    const data::Batches one_pass(stream, bench.sequence_length, bench.batch, 1);
    const data::Batches batches(stream, bench.sequence_length, sequences, 1);
    // The first use loads kernels and chooses algorithms of products.
    standard->step_seconds(one_pass);
    routed->step_seconds(one_pass);

    std::vector<double> standard_seconds, routed_seconds, ratios;
    for (std::int64_t round = 0; round < bench.rounds; ++round) {
      const bool standard_first = round % 2 == 0;
      Subject &first = standard_first ? *standard : *routed, &second = standard_first ? *routed : *standard;
      const double first_seconds = first.step_seconds(batches), second_seconds = second.step_seconds(batches);
      standard_seconds.push_back(standard_first ? first_seconds : second_seconds);
      routed_seconds.push_back(standard_first ? second_seconds : first_seconds);
      ratios.push_back(routed_seconds.back() / standard_seconds.back());
    }
    const auto tokens = static_cast<double>(sequences * bench.sequence_length);
    const auto settle = [&](StepSpeed& speed, const std::vector<double>& seconds) {
      speed.seconds = median(seconds);
      speed.tokens_per_second = tokens / speed.seconds;
    };
    settle(result.standard, standard_seconds);
    settle(result.routed, routed_seconds);
    result.routed_over_standard = median(ratios);
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  return result;
}

}  // namespace routescope::train
