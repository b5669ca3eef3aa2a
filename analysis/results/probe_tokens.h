// The tokens that a model is probed on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "analysis/results/answers.h"
#include "model/files/config.h"

namespace routescope::analysis {

struct ProbeTokens {
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::int32_t> ids;  // [sequences, positions]
  std::string origin;             // where they come from, for the record: "routing.h5 /probe_tokens"
  /// [sequences] the document that each sequence comes from, any number that no other document has. Sequences of one
  /// document are not independent; intervals and tests count documents. Empty: not known, each sequence its own.
  std::vector<std::int64_t> documents = {};
  /// [sequences] of a task, whose sequences are prompts, each with its answer behind it and padding behind that. Empty:
  /// every token but the first of a sequence is predicted and scored.
  std::vector<Answer> answers = {};

  bool is_task() const { return !answers.empty(); }
  /// How many predictions of a sequence are scored.
  std::int64_t scored() const { return is_task() ? 1 : positions - 1; }
  /// The tokens of a sequence that count where all do, as in masses and means: of a prompt, without what follows it.
  std::int64_t length(std::int64_t sequence) const {
    return is_task() ? answers[static_cast<std::size_t>(sequence)].position + 1 : positions;
  }
  /// [count, positions] for each token of sequences [first, first + count) the token that follows it, where that is
  /// scored; else -1. The targets of a model.
  std::vector<std::int32_t> targets(std::int64_t first_sequence, std::int64_t count) const;

  /// The first `count` sequences; 0: all. Throws Error if there are fewer.
  ProbeTokens first(std::int64_t count) const;
};

/// Fewer documents than this are too few for tests that count them: the tools say so.
inline constexpr std::int64_t least_documents = 16;

/// The fixed held-out tokens of a run of this model. Where an older record does not name their documents, these are
/// counted: its sequences are consecutive windows of one stream. Throws Error.
ProbeTokens run_probe_tokens(const std::filesystem::path& run_dir, const model::ModelConfig& config);

/// Whatever model/files/tokens.h reads: an HDF5 file with an integer dataset `tokens` [sequences, positions] and
/// perhaps `documents` [sequences]; a token shard, of which windows of `positions` tokens are taken, of different
/// documents (data/tokens/documents.h); or ids, which are one document. `sequences` of them; 0: all, of a shard up
/// to 32. Throws Error.
ProbeTokens load_probe_tokens(const std::string& source, std::int64_t sequences, std::int64_t positions,
                              const model::ModelConfig& config);

/// Tokens of `source` that are aligned with `tokens`, which load_probe_tokens() loaded from `tokens_source` (empty: a
/// run's own). Of two shards the same windows; of a shard beside other tokens its first consecutive windows.
ProbeTokens load_aligned_tokens(const std::string& source, const ProbeTokens& tokens, const std::string& tokens_source,
                                const model::ModelConfig& config);

/// A line for the user where there are too few documents for intervals and tests, or where documents are not known;
/// else empty.
std::string documents_warning(const ProbeTokens& tokens);

/// For each token the token that follows it in its sequence of `positions`, -1 for the last: the targets of a model.
std::vector<std::int32_t> next_tokens(std::span<const std::int32_t> ids, std::int64_t positions);

/// Throws Error naming the first id that is not below vocab_size, or that the sequences are too short to predict a
/// token.
void check_probe_tokens(const ProbeTokens& tokens, std::int64_t vocab_size);

}  // namespace routescope::analysis
