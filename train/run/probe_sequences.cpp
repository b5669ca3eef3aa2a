#include "train/run/probe_sequences.h"

#include <spdlog/spdlog.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "data/records/routing_file.h"
#include "data/tokens/documents.h"
#include "kernels/comm/agree.h"
#include "model/files/tokens.h"

namespace routescope::train {

namespace {

ProbeSequences choose(const TrainConfig& config, const data::TokenStream& stream) {
  const data::TokenSource source = data::source_of(stream);
  data::TokenWindows windows = data::choose_windows(source, model::document_ends(config.model),
                                                    config.data.sequence_length, config.routing.sequences);
  ProbeSequences out{data::read_windows(source, windows), std::move(windows.document)};
  if (out.documents.empty()) {
    spdlog::warn(
        "data.valid: found no end-of-document token (model.eos_token_id): it is not known which of the {} probe "
        "sequences are of one document, and probes will treat them as independent",
        config.routing.sequences);
  } else {
    spdlog::info("{} probe sequences of {} documents", config.routing.sequences,
                 std::set(out.documents.begin(), out.documents.end()).size());
  }
  return out;
}

template <class T>
std::vector<T> broadcast(const std::vector<T>& values, kernels::Communicator& communicator) {
  const std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  const std::string all = communicator.broadcast(bytes, "probe sequences");
  std::vector<T> out(all.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), all.data(), all.size());
  return out;
}

}  // namespace

ProbeSequences find_probe_sequences(const TrainConfig& config, const Streams& streams, const StartPoint& start,
                                    kernels::Communicator& communicator) {
  ProbeSequences out;
  kernels::agree(communicator, "probe sequences", [&] {
    if (communicator.rank() != 0) return;
    const std::filesystem::path file = std::filesystem::path(config.run.dir) / "routing.h5";
    if (start.checkpoint && std::filesystem::exists(file)) {
      data::routing_format::with_record(file, [&](const data::hdf5::File& record, bool) {
        const data::RoutingRecordInfo info = data::routing_format::read_info(record);
        if (info.sequences != config.routing.sequences || info.positions != config.data.sequence_length)
          throw data::Error("{}: /probe_tokens: found {} sequences of {} tokens, expected {} of {} as in config.yaml",
                            file.string(), info.sequences, info.positions, config.routing.sequences,
                            config.data.sequence_length);
        out = {info.probe_tokens, info.probe_documents};
      });
    } else {
      out = choose(config, streams.valid);
    }
  });
  return {broadcast(out.tokens, communicator), broadcast(out.documents, communicator)};
}

}  // namespace routescope::train
