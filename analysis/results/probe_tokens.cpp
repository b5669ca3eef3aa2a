#include "analysis/results/probe_tokens.h"

#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "data/records/routing_file.h"
#include "model/files/tokens.h"

namespace routescope::analysis {
namespace {

constexpr std::int64_t default_shard_sequences = 32;

}  // namespace

ProbeTokens ProbeTokens::first(std::int64_t count) const {
  if (count == 0 || count == sequences) return *this;
  if (count < 0 || count > sequences) {
    throw data::Error("{}: found {} sequences of {} tokens, expected {}", origin, sequences, positions, count);
  }
  ProbeTokens out{count, positions, {ids.begin(), ids.begin() + count * positions}, origin};
  if (!documents.empty()) out.documents.assign(documents.begin(), documents.begin() + count);
  return out;
}

ProbeTokens run_probe_tokens(const std::filesystem::path& run_dir) {
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
  });
  return tokens;
}

ProbeTokens load_probe_tokens(const std::string& source, std::int64_t sequences, std::int64_t positions,
                              std::int64_t vocab_size) {
  model::TokenBatch batch =
      model::read_tokens(source, sequences > 0 ? sequences : default_shard_sequences, positions, vocab_size);
  const std::string name = std::filesystem::exists(source) ? std::filesystem::path(source).filename().string() : "ids";
  return ProbeTokens{batch.sequences, batch.seq_len, std::move(batch.ids), name}.first(sequences);
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
