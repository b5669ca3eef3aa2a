// The tokens that a model is probed on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace routescope::analysis {

struct ProbeTokens {
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::int32_t> ids;  // [sequences, positions]
  std::string origin;             // where they come from, for the record: "routing.h5 /probe_tokens"
  /// [sequences] the document that each sequence comes from, any number that no other document has. Sequences of one
  /// document are not independent; intervals and tests count documents. Empty: not known, each sequence its own.
  std::vector<std::int64_t> documents = {};

  /// The first `count` sequences; 0: all. Throws Error if there are fewer.
  ProbeTokens first(std::int64_t count) const;
};

/// Fewer documents than this are too few for tests that count them: the tools say so.
inline constexpr std::int64_t least_documents = 16;

/// The fixed held-out tokens of a run. Throws Error.
ProbeTokens run_probe_tokens(const std::filesystem::path& run_dir);

/// Whatever model/files/tokens.h reads: an HDF5 file with an integer dataset `tokens` [sequences, positions]; a token
/// shard, of which consecutive pieces of `positions` tokens are taken; or ids. `sequences` of them; 0: all, of a shard
/// up to 32.
ProbeTokens load_probe_tokens(const std::string& source, std::int64_t sequences, std::int64_t positions,
                              std::int64_t vocab_size);

/// For each token the token that follows it in its sequence of `positions`, -1 for the last: the targets of a model.
std::vector<std::int32_t> next_tokens(std::span<const std::int32_t> ids, std::int64_t positions);

/// Throws Error naming the first id that is not below vocab_size, or that the sequences are too short to predict a
/// token.
void check_probe_tokens(const ProbeTokens& tokens, std::int64_t vocab_size);

}  // namespace routescope::analysis
