// Prompts with answers: which prediction of each is scored, and by which numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace routescope::analysis {

/// Which prompt of a task a model runs on, and which one it takes from where an ablation takes from aligned tokens.
/// Noising: the clean one, with what it takes from the corrupted one; an effect above zero says that the answer needs
/// what was replaced. Denoising: the corrupted one, with what it takes from the clean one; an effect below zero says
/// that what was put in brings the answer back.
enum class Direction { noising, denoising };
std::string to_string(Direction direction);

/// What a prompt asks for. The answer is the token that follows it in its sequence.
struct Answer {
  std::int64_t position = 0;     // of the prompt's last token: its prediction is scored, and nothing else
  std::int32_t distractor = -1;  // a wrong answer; -1: none

  bool operator==(const Answer&) const = default;
};

/// Numbers of an answer beside its nll: its logit minus that of the distractor (NaN without); its probability; how many
/// tokens have a larger logit, those with an equal one as halves: 0 is first.
enum class Metric { logit_diff, probability, rank };
inline constexpr std::size_t num_metrics = 3;
inline constexpr std::array<Metric, num_metrics> all_metrics{Metric::logit_diff, Metric::probability, Metric::rank};
inline constexpr std::array<const char*, num_metrics> metric_names{"logit_diff", "probability", "rank"};
inline constexpr std::array<const char*, num_metrics> metric_units{"1", "1", "1"};

std::string describe(Metric metric);

using MetricValues = std::array<double, num_metrics>;

/// logits [vocabulary]; `answer` and `distractor` (-1: none) are ids of it.
MetricValues metrics_of(std::span<const double> logits, std::int32_t answer, std::int32_t distractor);

}  // namespace routescope::analysis
