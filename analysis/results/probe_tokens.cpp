#include "analysis/results/probe_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/records/probe_documents.h"
#include "data/records/routing_file.h"
#include "data/tokens/documents.h"
#include "data/tokens/shard.h"
#include "model/files/tokens.h"

namespace routescope::analysis {
namespace {

constexpr std::int64_t default_shard_sequences = 32;

std::string name_of(const std::string& file) {
  return std::filesystem::path(file).filename().string();
}

/// The documents of consecutive windows of one stream, as far as the model's end-of-document tokens tell.
void count_documents(ProbeTokens& tokens, const model::ModelConfig& config) {
  std::vector<std::int64_t> at;
  for (std::int64_t q = 0; q < tokens.sequences; ++q) at.push_back(q * tokens.positions);
  tokens.documents = data::documents_at(data::source_of(tokens.ids), model::document_ends(config), at);
}

/// Windows of a shard, chosen by the documents of the shard `chosen_in`.
ProbeTokens load_shard(const std::string& source, const std::string& chosen_in, std::int64_t sequences,
                       std::int64_t positions, const model::ModelConfig& config) {
  const data::Shard shard{std::filesystem::path(source)}, chooses{std::filesystem::path(chosen_in)};
  const std::int64_t length = std::min(positions, chooses.size());
  if (length == 0) throw data::Error("{}: found no tokens", chosen_in);
  const std::int64_t count = std::min(sequences > 0 ? sequences : default_shard_sequences, chooses.size() / length);
  data::TokenWindows windows =
      data::choose_windows(data::source_of(chooses), model::document_ends(config), length, count);
  ProbeTokens tokens{count, length, data::read_windows(data::source_of(shard), windows), name_of(source),
                     std::move(windows.document)};
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.ids[i] >= 0 && tokens.ids[i] < config.vocab_size) continue;
    const std::int64_t at = windows.begin[i / static_cast<std::size_t>(length)] +
                            static_cast<std::int64_t>(i % static_cast<std::size_t>(length));
    throw data::Error("{}: token {}: found id {}, expected 0 to {} (the model's vocabulary)", source, at, tokens.ids[i],
                      config.vocab_size - 1);
  }
  return tokens.first(sequences);
}

}  // namespace

ProbeTokens ProbeTokens::first(std::int64_t count) const {
  if (count == 0 || count == sequences) return *this;
  if (count < 0 || count > sequences) {
    throw data::Error("{}: found {} sequences of {} tokens, expected {}", origin, sequences, positions, count);
  }
  ProbeTokens out{count, positions, {ids.begin(), ids.begin() + count * positions}, origin};
  if (!documents.empty()) out.documents.assign(documents.begin(), documents.begin() + count);
  if (is_task()) out.answers.assign(answers.begin(), answers.begin() + count);
  return out;
}

std::vector<std::int32_t> ProbeTokens::targets(std::int64_t first_sequence, std::int64_t count) const {
  const auto of = std::span(ids).subspan(static_cast<std::size_t>(first_sequence * positions),
                                         static_cast<std::size_t>(count * positions));
  std::vector<std::int32_t> out = next_tokens(of, positions);
  for (std::size_t i = 0; is_task() && i < out.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    if (at % positions != answers[static_cast<std::size_t>(first_sequence + at / positions)].position) out[i] = -1;
  }
  return out;
}

ProbeTokens run_probe_tokens(const std::filesystem::path& run_dir, const model::ModelConfig& config) {
  const std::string name = "probe_tokens";
  ProbeTokens tokens;
  data::routing_format::with_record(run_dir / "routing.h5", [&](const data::hdf5::File& file, bool) {
    const data::hdf5::Dataset dataset = file.dataset(name);
    const data::hdf5::Shape shape = dataset.shape();
    if (!dataset.is_integer() || shape.size() != 2) {
      throw data::Error("{}: found {} axes of {}, expected integers [sequence, position]", dataset.where(),
                        shape.size(), dataset.is_integer() ? "integers" : "another type");
    }
    tokens = {shape[0], shape[1], dataset.read<std::int32_t>(), "routing.h5 /" + name};
    const std::string documents = data::probe_document_field().path;
    if (file.exists(documents)) tokens.documents = data::read_documents(file.dataset(documents), tokens.sequences);
  });
  if (tokens.documents.empty()) count_documents(tokens, config);
  return tokens;
}

ProbeTokens load_probe_tokens(const std::string& source, std::int64_t sequences, std::int64_t positions,
                              const model::ModelConfig& config) {
  if (model::is_token_shard(source)) return load_shard(source, source, sequences, positions, config);
  model::TokenBatch batch = model::read_tokens(source, 0, 0, config.vocab_size);
  const bool ids = !std::filesystem::exists(source);
  ProbeTokens tokens{batch.sequences, batch.seq_len, std::move(batch.ids), ids ? "ids" : name_of(source),
                     std::move(batch.documents)};
  if (ids) tokens.documents = {0};
  if (batch.consecutive) count_documents(tokens, config);
  return tokens.first(sequences);
}

ProbeTokens load_aligned_tokens(const std::string& source, const ProbeTokens& tokens, const std::string& tokens_source,
                                const model::ModelConfig& config) {
  if (model::is_token_shard(source) && !tokens_source.empty() && model::is_token_shard(tokens_source))
    return load_shard(source, tokens_source, tokens.sequences, tokens.positions, config);
  model::TokenBatch batch = model::read_tokens(source, tokens.sequences, tokens.positions, config.vocab_size);
  const std::string name = std::filesystem::exists(source) ? name_of(source) : "ids";
  return ProbeTokens{batch.sequences, batch.seq_len, std::move(batch.ids), name}.first(tokens.sequences);
}

std::string documents_warning(const ProbeTokens& tokens) {
  if (tokens.documents.empty()) {
    return fmt::format(
        "warning: the documents of {} sequences are not known: taken as independent; if not, intervals are too narrow",
        tokens.sequences);
  }
  const std::size_t documents = std::set(tokens.documents.begin(), tokens.documents.end()).size();
  if (static_cast<std::int64_t>(documents) >= least_documents) return "";
  return fmt::format(
      "warning: {} sequence{} of {} document{}, expected {} documents or more: intervals and tests count documents",
      tokens.sequences, tokens.sequences == 1 ? "" : "s", documents, documents == 1 ? "" : "s", least_documents);
}

std::vector<std::int32_t> next_tokens(std::span<const std::int32_t> ids, std::int64_t positions) {
  std::vector<std::int32_t> out(ids.size(), -1);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i)
    if ((i + 1) % static_cast<std::size_t>(positions) != 0) out[i] = ids[i + 1];
  return out;
}

void check_probe_tokens(const ProbeTokens& tokens, std::int64_t vocab_size) {
  if (tokens.sequences < 1 || tokens.positions < 2) {
    throw data::Error("{}: found {} sequences of {} tokens, expected at least one of at least two", tokens.origin,
                      tokens.sequences, tokens.positions);
  }
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.ids[i] >= 0 && tokens.ids[i] < vocab_size) continue;
    throw data::Error("{}: token {}: found id {}, expected 0 to {} (the model's vocabulary)", tokens.origin, i,
                      tokens.ids[i], vocab_size - 1);
  }
}

}  // namespace routescope::analysis
