#include "train/run/progress.h"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace routescope::train {

namespace {

constexpr double kBarSeconds = 0.2, kLineSeconds = 5.0;
constexpr std::size_t kLeastBar = 6, kMostBar = 24;

/// Columns of the terminal that standard output is, or 0: mpirun gives its ranks one without a size, which is a file.
std::size_t terminal_columns() {
  winsize size{};
  return ::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = std::llround(std::max(0.0, seconds));
  if (whole >= 86400) return fmt::format("{}d{:02}h", whole / 86400, whole % 86400 / 3600);
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

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
  // Everything that took time counts: validation, snapshots and checkpoints too.
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
  // A line that wraps could not be rewritten: the bar makes room for the figures, then the figures are cut.
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
