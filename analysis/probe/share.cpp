#include "analysis/probe/share.h"

#include <cstring>

#include "kernels/comm/agree.h"

namespace routescope::analysis {

std::vector<std::vector<double>> share_sequences(
    std::int64_t begin, std::int64_t end, const std::string& what, kernels::Communicator& communicator,
    const std::function<std::vector<double>(std::int64_t first, std::int64_t last)>& body) {
  const auto part = [&](int rank) { return begin + (end - begin) * rank / communicator.size(); };
  std::vector<double> own;
  kernels::agree(communicator, what, [&] { own = body(part(communicator.rank()), part(communicator.rank() + 1)); });
  std::string all;
  for (const std::string& of_rank :
       communicator.gather({reinterpret_cast<const char*>(own.data()), own.size() * sizeof(double)}, what))
    all += of_rank;
  all = communicator.broadcast(all, what);
  std::vector<std::vector<double>> out(static_cast<std::size_t>(end - begin));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t width = all.size() / out.size();
    out[i].resize(width / sizeof(double));
    if (width > 0) std::memcpy(out[i].data(), all.data() + i * width, width);
  }
  return out;
}

}  // namespace routescope::analysis
