#include "train/run/progress.h"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "train/plan/duration.h"

namespace routescope::train {

namespace {

constexpr double kBarSeconds = 0.2, kLineSeconds = 5.0;
constexpr std::size_t kLeastBar = 6, kMostBar = 24;

/// Columns of the terminal on standard output, or 0 if it is a file. A terminal without a size, which mpirun gives its
/// ranks, counts as a file.
std::size_t terminal_columns() {
  winsize size{};
  return ::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace

Progress::Progress(const Totals& totals) : totals_(totals), terminal_(terminal_columns() > 0) {}

Progress::~Progress() {
  erase_bar();
}

std::string Progress::line(const Row& row) const {
  std::string text = fmt::format("step {}/{}  loss {:.4f}", row.step, totals_.last_step, row.loss);
  if (valid_loss_) text += fmt::format("  valid {:.4f}", *valid_loss_);
  text += fmt::format("  lr {:.2e}  {:.0f} tok/s", row.learning_rate, row.tokens_per_second);
  if (totals_.matrix_rate > 0) {
    text += fmt::format("  {:.0f}% of matrix rate",
                        100 * row.tokens_per_second * totals_.flops_per_token / totals_.matrix_rate);
  }
  // Validation, snapshots and checkpoints are part of the elapsed time.
  const double elapsed = std::chrono::duration<double>(Clock::now() - begin_).count();
  const auto done = static_cast<double>(row.step - totals_.first_step);
  const auto left = static_cast<double>(totals_.last_step - row.step);
  return text + fmt::format("  left {}", format_duration(elapsed / done * left));
}

void Progress::update(const Row& row) {
  const Clock::time_point now = Clock::now();
  const double interval = terminal_ ? kBarSeconds : kLineSeconds;
  const bool last = row.step == totals_.last_step;
  if (!last && printed_ && std::chrono::duration<double>(now - *printed_).count() < interval) return;
  printed_ = now;
  if (!terminal_ || last) {
    erase_bar();
    spdlog::info("{}", line(row));
    return;
  }
  // A wrapped line could not be rewritten. So the bar becomes shorter first, then the figures are cut.
  const std::size_t columns = std::max<std::size_t>(terminal_columns(), 2) - 1;
  std::string text = line(row);
  if (const std::size_t taken = text.size() + 3; columns >= taken + kLeastBar) {
    const std::size_t width = std::min(kMostBar, columns - taken);
    const auto filled = width * static_cast<std::size_t>(row.step) / static_cast<std::size_t>(totals_.last_step);
    text = fmt::format("[{}{}] {}", std::string(filled, '#'), std::string(width - filled, '.'), text);
  }
  text.resize(std::min(text.size(), columns));
  fmt::print("\r\x1b[K{}", text);
  std::fflush(stdout);
  bar_shown_ = true;
}

void Progress::erase_bar() {
  if (!bar_shown_) return;
  fmt::print("\r\x1b[K");
  std::fflush(stdout);
  bar_shown_ = false;
}

}  // namespace routescope::train
