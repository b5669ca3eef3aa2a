// The progress of a run on standard output: a bar that rewrites itself on a terminal, a line every few seconds
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace routescope::train {

class Progress {
 public:
  struct Totals {
    std::int64_t first_step = 0;  // steps that were finished when this process started
    std::int64_t last_step = 0;
    double flops_per_token = 0;
    double matrix_rate = 0;  // FLOP/s that count as 100 %; 0: not measured, and no share is shown
  };
  struct Row {
    std::int64_t step = 0;
    double loss = 0;
    double learning_rate = 0;
    double tokens_per_second = 0;
  };

  explicit Progress(const Totals& totals);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call it before the first step: the time left is estimated from the time since this call.
  void begin() { begin_ = Clock::now(); }
  /// Call it after every update. Prints the first and the last step, and others when the interval has passed.
  void update(const Row& row);
  /// The validation loss to show from now on.
  void validated(double loss) { valid_loss_ = loss; }
  const Totals& totals() const { return totals_; }

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(const Row& row) const;
  void erase_bar();

  Totals totals_;
  bool terminal_;
  Clock::time_point begin_ = Clock::now();
  std::optional<Clock::time_point> printed_;
  std::optional<double> valid_loss_;
  bool bar_shown_ = false;
};

}  // namespace routescope::train
