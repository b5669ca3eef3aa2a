// Token input of the tools: ids on the command line, an HDF5 file, or a token shard.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace routescope::model {

struct TokenBatch {
  std::int64_t sequences = 0, seq_len = 0;
  std::vector<std::int32_t> ids;  // [sequences, seq_len]

  std::vector<std::int32_t> sequence(std::int64_t index) const;
  /// The token after each token of a sequence; -1 after the last.
  std::vector<std::int32_t> targets(std::int64_t index) const;
};

/// `source` is "1,2,3" (one sequence), an HDF5 file with an integer dataset `tokens` [B, T] (or `probe_tokens`, as
/// records have it), or a token shard, of which the first `sequences` windows of `seq_len` tokens are taken. Throws
/// Error; ids are checked against vocab_size.
TokenBatch read_tokens(const std::string& source, std::int64_t sequences, std::int64_t seq_len,
                       std::int64_t vocab_size);

}  // namespace routescope::model
