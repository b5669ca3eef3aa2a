#include "model/files/tokens.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/records/probe_documents.h"
#include "data/records/routing_file.h"
#include "data/tokens/shard.h"
#include "data/tokens/tokenizer.h"

namespace routescope::model {

namespace {

bool looks_like_ids(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789, ") == std::string::npos && !std::filesystem::exists(text);
}

std::vector<std::int32_t> parse_ids(const std::string& text) {
  std::vector<std::int32_t> ids;
  const char *at = text.data(), *end = text.data() + text.size();
  while (at < end) {
    while (at < end && *at == ' ') ++at;
    std::int32_t id = 0;
    const auto [next, status] = std::from_chars(at, end, id);
    if (status != std::errc{})
      throw data::Error("tokens: offset {}: found '{}', expected comma-separated ids", at - text.data(),
                        std::string(at, end));
    ids.push_back(id);
    at = next;
    while (at < end && *at == ' ') ++at;
    if (at < end && *at++ != ',') throw data::Error("tokens: offset {}: expected a comma", at - 1 - text.data());
  }
  return ids;
}

bool is_hdf5(const std::string& file) {
  constexpr char kSignature[] = "\x89HDF\r\n\x1a\n";
  char head[8] = {};
  data::require_regular(file);
  std::ifstream in(file, std::ios::binary);
  return in.read(head, 8) && std::equal(head, head + 8, kSignature);
}

}  // namespace

bool is_token_shard(const std::string& source) {
  return !looks_like_ids(source) && !is_hdf5(source);
}

std::vector<std::int32_t> TokenBatch::sequence(std::int64_t index) const {
  const auto begin = ids.begin() + index * seq_len;
  return {begin, begin + seq_len};
}

std::vector<std::int32_t> TokenBatch::targets(std::int64_t index) const {
  std::vector<std::int32_t> out = sequence(index);
  out.erase(out.begin());
  out.push_back(-1);
  return out;
}

TokenBatch read_tokens(const std::string& source, std::int64_t sequences, std::int64_t seq_len,
                       std::int64_t vocab_size) {
  TokenBatch batch;
  if (looks_like_ids(source)) {
    batch.ids = parse_ids(source);
    batch.sequences = 1;
    batch.seq_len = static_cast<std::int64_t>(batch.ids.size());
  } else if (is_hdf5(source)) {
    const data::hdf5::File file = data::hdf5::File::open(source);
    const data::hdf5::Dataset tokens = file.dataset(file.exists("probe_tokens") ? "probe_tokens" : "tokens");
    const data::hdf5::Shape shape = tokens.shape();
    if (!tokens.is_integer() || shape.size() != 2)
      throw data::Error("{}: expected integers of shape [B, T], found {} axes{}", tokens.where(), shape.size(),
                        tokens.is_integer() ? "" : " of another type");
    batch.sequences = shape[0];
    batch.seq_len = shape[1];
    batch.ids = tokens.read<std::int32_t>();
    for (const char* name : {"probe_document", "documents"}) {
      if (!batch.documents.empty() || !file.exists(name)) continue;
      batch.documents = data::read_documents(file.dataset(name), batch.sequences);
    }
    batch.consecutive =
        batch.documents.empty() && file.has("filetype") && file.text("filetype") == data::routing_format::filetype;
  } else {
    const data::Shard shard{std::filesystem::path(source)};
    batch.seq_len = std::min(seq_len, shard.size());
    batch.sequences = batch.seq_len > 0 ? std::min(sequences, shard.size() / batch.seq_len) : 0;
    batch.ids.resize(static_cast<std::size_t>(batch.sequences * batch.seq_len));
    shard.read(0, batch.ids);
  }
  if (batch.ids.empty()) throw data::Error("{}: found no tokens", source);
  for (std::size_t i = 0; i < batch.ids.size(); ++i)
    if (batch.ids[i] < 0 || batch.ids[i] >= vocab_size)
      throw data::Error("{}: token {}: found id {}, expected 0 to {} (the model's vocabulary)", source, i, batch.ids[i],
                        vocab_size - 1);
  return batch;
}

std::vector<std::int64_t> document_ends(const ModelConfig& config) {
  std::vector<std::int64_t> ends = config.eos_token_id;
  ends.insert(ends.end(), config.bos_token_id.begin(), config.bos_token_id.end());
  std::erase_if(ends, [&](std::int64_t id) { return id < 0 || id >= config.vocab_size; });
  if (ends.empty() && config.vocab_size == data::byte_tokenizer::vocab_size)
    ends = {data::byte_tokenizer::end_of_document};
  return ends;
}

}  // namespace routescope::model
