#include "train/plan/calibrate.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "model/pass/reads.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

namespace {

using Clock = std::chrono::steady_clock;

// Tokens of a timed pass: enough for matrix products to reach their rate.
constexpr std::int64_t kTokens = 1024;
// Largest timed matrix of the head. The difference to a sixteenth of it is scaled to the vocabulary.
constexpr std::int64_t kHeadElements = std::int64_t{1} << 25;
// Elements of a timed update: more than any cache holds.
constexpr std::int64_t kUpdateElements = std::int64_t{1} << 23;
constexpr int kLeastRounds = 3, kMostRounds = 15;
constexpr double kClockSeconds = 1e-9;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

/// Seconds that the larger of two passes takes longer; positive even if noise makes it appear shorter.
double difference(double larger, double smaller) {
  return std::max(kClockSeconds, larger - smaller);
}

/// A model and a pass over random tokens.
class Trial {
 public:
  Trial(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch, std::int64_t seq_len,
        const model::PassOptions& pass)
      : model_(config, options),
        gradients_(options.storage, options.device, {model_.layout().total()}),
        pass_(model_, batch, seq_len, model::Pass::Kind::train, pass),
        ids_(static_cast<std::size_t>(batch * seq_len)) {
    model_.initialize(1);
    std::mt19937_64 random(1);
    for (std::int32_t& id : ids_)
      id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(config.vocab_size));
  }
  double seconds() {
    kernels::synchronize(pass_.stream());
    const auto begin = Clock::now();
    pass_.accumulate(ids_, ids_, 1.0, gradients_.tensor);
    pass_.take_loss();
    return since(begin);
  }
  std::int64_t tokens() const { return pass_.tokens(); }

 private:
  model::Model model_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  std::vector<std::int32_t> ids_;
};

/// Medians over rounds. All trials take turns in a round, so that other load on the machine affects all of them.
std::vector<double> medians(const std::vector<std::unique_ptr<Trial>>& trials, double seconds) {
  for (const auto& trial : trials) trial->seconds();  // the first pass chooses kernels and touches memory
  std::vector<std::vector<double>> times(trials.size());
  const auto begin = Clock::now();
  for (int round = 0; round < kMostRounds && (round < kLeastRounds || since(begin) < seconds); ++round)
    for (std::size_t i = 0; i < trials.size(); ++i) times[i].push_back(trials[i]->seconds());
  std::vector<double> out;
  for (std::vector<double>& t : times) out.push_back(median(std::move(t)));
  return out;
}

/// Number of pairs of a routed read and one of its sources.
double read_sources(const model::ModelConfig& config) {
  std::size_t pairs = 0;
  for (const model::Read& read : model::ReadPlan(config).reads)
    if (read.routed) pairs += read.sources.size() + 1;
  return static_cast<double>(pairs);
}

/// A model of the same widths with other numbers of layers and ids and another residual stream.
model::ModelConfig reduced(model::ModelConfig config, std::int64_t layers, std::int64_t vocabulary,
                           model::Residual residual) {
  config.num_hidden_layers = layers;
  config.num_blocks = std::min(config.num_blocks, layers);
  config.vocab_size = vocabulary;
  config.residual = residual;
  return config;
}

void time_passes(const TrainConfig& config, double seconds, ComputeTimes& times) {
  const model::ModelConfig& model = config.model;
  const std::int64_t length = config.data.sequence_length;
  const std::int64_t batch = std::min(config.train.micro_batch, std::max<std::int64_t>(1, kTokens / length));
  const auto trial = [&](std::int64_t layers, std::int64_t vocabulary, model::Residual residual, std::int64_t sequences,
                         std::int64_t tokens) {
    return std::make_unique<Trial>(reduced(model, layers, vocabulary, residual), config.model_options(), sequences,
                                   tokens, config.pass_options());
  };

  std::vector<std::unique_ptr<Trial>> trials;
  trials.push_back(trial(1, 2, model::Residual::standard, batch, length));
  trials.push_back(trial(2, 2, model::Residual::standard, batch, length));
  if (model.routed()) trials.push_back(trial(2, 2, model.residual, batch, length));
  std::vector<double> t = medians(trials, seconds / 2);
  const double passes = static_cast<double>(config.train.micro_batch) / static_cast<double>(batch);
  double layer = difference(t[1], t[0]);
  if (model.routed()) {
    const double extra = std::max(0.0, t[2] - t[1]) / read_sources(reduced(model, 2, 2, model.residual));
    layer += extra * read_sources(model) / static_cast<double>(model.num_hidden_layers);
  }
  // One third of a layer's products is in the forward pass, two thirds are in the backward pass.
  times.layer_forward = passes * layer / 3;
  times.layer_backward = passes * layer * 2 / 3;

  trials.clear();
  const HeadTrial head = head_trial(config);
  for (const std::int64_t columns : {head.few, head.many})
    trials.push_back(trial(1, columns, model::Residual::standard, head.sequences, head.length));
  t = medians(trials, seconds / 4);
  times.head = head_seconds(config, head, difference(t[1], t[0]));
}

/// Clearing gradients; and norm, update rule and bf16 copies of the elements that a rank updates.
void time_update(const TrainConfig& config, double seconds, ComputeTimes& times) {
  const model::ModelOptions options = config.model_options();
  const auto owned = [&](kernels::DType dtype, std::int64_t n) {
    return kernels::OwnedTensor(dtype, options.device, {n});
  };
  const std::unique_ptr<UpdateRule> rule = make_update_rule(config.train.optimizer);
  std::vector<kernels::OwnedTensor> arrays;
  std::vector<kernels::Tensor> state;
  for (std::size_t slot = 0; slot < rule->slots().size(); ++slot)
    state.push_back(arrays.emplace_back(owned(options.storage, kUpdateElements)).tensor);
  const kernels::OwnedTensor parameters = owned(options.storage, kUpdateElements),
                             gradients = owned(options.storage, kUpdateElements), norm = owned(kernels::DType::f64, 1),
                             scale = owned(options.storage, 1);
  const bool copies = options.operands != options.storage;
  const kernels::OwnedTensor operands = owned(options.operands, copies ? kUpdateElements : 1);
  const std::size_t workspace_size = kernels::workspace_bytes(
      {.tokens = 1, .hidden_size = 1, .product_k = 1, .product_n = 1, .attention = {1, 1, 1, 1, 1}}, options.device);
  const kernels::Buffer workspace(workspace_size, options.device);
  const kernels::Stream stream{.device = options.device,
                               .workspace = static_cast<std::byte*>(workspace.data()),
                               .workspace_size = workspace_size};
  std::vector<double> clear, update;
  const auto begin = Clock::now();
  for (int round = 0; round <= kMostRounds && (round <= kLeastRounds || since(begin) < seconds); ++round) {
    kernels::synchronize(stream);
    const auto cleared = Clock::now();
    kernels::fill(gradients.tensor, 1e-3, stream);
    kernels::synchronize(stream);
    const auto updated = Clock::now();
    kernels::sum_of_squares(norm.tensor, gradients.tensor, stream);
    rule->update({.parameters = parameters.tensor, .state = state, .gradients = gradients.tensor, .decayed = true},
                 {.step = round + 1, .learning_rate = 1e-4, .scale = scale.tensor}, stream);
    if (copies) kernels::cast(operands.tensor, parameters.tensor, stream);
    kernels::synchronize(stream);
    if (round == 0) continue;
    clear.push_back(std::chrono::duration<double>(updated - cleared).count());
    update.push_back(since(updated));
  }
  times.clear = median(clear) / static_cast<double>(kUpdateElements);
  times.update = median(update) / static_cast<double>(kUpdateElements);
}

/// Bytes a second that all threads together copy in memory.
double time_copies() {
  const kernels::OwnedTensor from(kernels::DType::f32, kernels::Device::cpu, {kUpdateElements}),
      to(kernels::DType::f32, kernels::Device::cpu, {kUpdateElements});
  std::vector<double> seconds;
  for (int round = 0; round <= kLeastRounds; ++round) {
    const auto begin = Clock::now();
    kernels::cast(to.tensor, from.tensor, kernels::Stream{});
    if (round > 0) seconds.push_back(since(begin));
  }
  return static_cast<double>(from.tensor.bytes()) / median(seconds);
}

}  // namespace

std::size_t resident_bytes() {
  ::malloc_trim(0);
  std::size_t program = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> program >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

HeadTrial head_trial(const TrainConfig& config) {
  const std::int64_t length = config.data.sequence_length;
  const std::int64_t batch = std::min(config.train.micro_batch, std::max<std::int64_t>(1, kTokens / length));
  HeadTrial out;
  out.length = std::min<std::int64_t>(length, 64);
  out.sequences = std::max<std::int64_t>(1, std::min(kTokens, batch * length) / out.length);
  out.many = std::max<std::int64_t>(2, std::min(config.model.vocab_size, kHeadElements / config.model.hidden_size));
  out.few = std::max<std::int64_t>(1, out.many / 16);
  return out;
}

double head_seconds(const TrainConfig& config, const HeadTrial& trial, double difference) {
  const double tokens = static_cast<double>(config.train.micro_batch * config.data.sequence_length);
  return difference * static_cast<double>(config.model.vocab_size) / static_cast<double>(trial.many - trial.few) *
         tokens / static_cast<double>(trial.sequences * trial.length);
}

Calibration calibrate(const TrainConfig& config, double seconds) {
  Calibration result;
  time_passes(config, 0.8 * seconds, result.times);
  time_update(config, 0.1 * seconds, result.times);
  if (config.device == "cpu") result.copy_rate = time_copies();
  result.process_bytes = resident_bytes();
  return result;
}

}  // namespace routescope::train
