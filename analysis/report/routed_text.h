// Tokens as text, and the weights with which every read of a model routed each of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/records/routing_view.h"

namespace routescope::analysis {

struct RoutedText {
  std::int64_t step = 0;  // of training; -1: not known
  std::string origin;
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::string> tokens;  // [sequences, positions] UTF-8
  std::vector<float> alpha;         // [reads, sequences, positions, columns]; NaN: no such source
};

/// The tokens of `dump` (routescope-model dump) or, if that is empty, the run's probe sequences at the latest step that
/// has weights of single tokens; nothing where there is no such step. `routing` is the content of `routing_file`.
/// Tokens are named by `tokenizer`, or if that is empty by the built-in vocabulary of this size. Throws Error.
std::optional<RoutedText> load_routed_text(const data::RoutingRecordView& routing,
                                           const std::filesystem::path& routing_file, const std::filesystem::path& dump,
                                           const std::filesystem::path& tokenizer, std::int64_t vocab_size);

}  // namespace routescope::analysis
