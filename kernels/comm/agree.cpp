#include "kernels/comm/agree.h"

namespace routescope::kernels {

void agree(Communicator& communicator, const std::string& what, const std::function<void()>& body) {
  if (communicator.size() == 1) return body();
  bool failed = false;
  std::string text;
  try {
    body();
  } catch (const std::exception& error) {
    failed = true;
    text = error.what();
  }
  // Without an error, the ranks exchange one number.
  const double none = static_cast<double>(communicator.size());
  double first = failed ? static_cast<double>(communicator.rank()) : none;
  communicator.all_reduce({&first, 1}, Reduction::min, what);
  if (first == none) return;
  const std::vector<std::string> texts = communicator.gather(text, what);
  const auto lowest = static_cast<std::size_t>(first);
  std::string message;
  if (communicator.rank() == 0) message = (lowest == 0 ? "" : "rank " + std::to_string(lowest) + ": ") + texts[lowest];
  throw AgreedError(communicator.broadcast(message, what));
}

}  // namespace routescope::kernels
