#include "data/records/token_counts.h"

#include <algorithm>
#include <vector>

#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/records/inspect.h"
#include "data/tokens/shard.h"

namespace routescope::data {
namespace {

using Counts = std::map<std::int32_t, std::int64_t>;

void add(Counts& counts, const std::vector<std::int32_t>& tokens, const std::string& where) {
  for (const std::int32_t id : tokens) {
    if (id < 0) throw Error("{}: found id {}, expected none below 0", where, id);
    ++counts[id];
  }
}

void add_hdf5(Counts& counts, const std::filesystem::path& name) {
  const hdf5::File file = hdf5::File::open(name);
  const std::string path = file.exists("probe_tokens") ? "probe_tokens" : "tokens";
  const hdf5::Dataset tokens = file.dataset(path);
  if (!tokens.is_integer()) throw Error("{}: found another type, expected integers", tokens.where());
  add(counts, tokens.read<std::int32_t>(), tokens.where());
}

void add_shard(Counts& counts, const std::filesystem::path& name) {
  const Shard shard(name);
  constexpr std::int64_t piece = std::int64_t{1} << 20;
  std::vector<std::int32_t> tokens;
  for (std::int64_t begin = 0; begin < shard.size(); begin += piece) {
    tokens.resize(static_cast<std::size_t>(std::min(piece, shard.size() - begin)));
    shard.read(begin, tokens);
    add(counts, tokens, name.string());
  }
}

}  // namespace

Counts token_counts(const std::filesystem::path& file) {
  Counts counts;
  is_hdf5(file) ? add_hdf5(counts, file) : add_shard(counts, file);
  if (counts.empty()) throw Error("{}: found no tokens", file.string());
  return counts;
}

}  // namespace routescope::data
