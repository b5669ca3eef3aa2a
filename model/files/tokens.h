// Token input of the tools: ids on the command line, an HDF5 file, or a token shard.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/files/config.h"

namespace routescope::model {

struct TokenBatch {
  std::int64_t sequences = 0, seq_len = 0;
  std::vector<std::int32_t> ids;  // [sequences, seq_len]
  /// [sequences] of an HDF5 file that names them (`probe_document` or `documents`): the document of each sequence.
  std::vector<std::int64_t> documents = {};
  /// Of a routing record that does not: the sequences are consecutive pieces of one stream.
  bool consecutive = false;

  std::vector<std::int32_t> sequence(std::int64_t index) const;
  /// The token after each token of a sequence; -1 after the last.
  std::vector<std::int32_t> targets(std::int64_t index) const;
};

/// Whether read_tokens() takes a source for a token shard.
bool is_token_shard(const std::string& source);

/// `source` is "1,2,3" (one sequence), an HDF5 file with an integer dataset `tokens` [B, T] (or `probe_tokens`, as
/// records have it), or a token shard, of which the first `sequences` windows of `seq_len` tokens are taken. Throws
/// Error; ids are checked against vocab_size.
TokenBatch read_tokens(const std::string& source, std::int64_t sequences, std::int64_t seq_len,
                       std::int64_t vocab_size);

/// The ids that end a document in streams for this model: eos_token_id and bos_token_id (the <|endoftext|> of Qwen3's
/// streams is its bos_token_id), as far as the vocabulary has them; the byte tokenizer's if there are none. Empty: not
/// known.
std::vector<std::int64_t> document_ends(const ModelConfig& config);

}  // namespace routescope::model
