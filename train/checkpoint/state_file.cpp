#include "train/checkpoint/state_file.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>

#include "data/base/error.h"
#include "data/base/json.h"
#include "kernels/ops.h"

namespace routescope::train {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStem = "train_state", kSuffix = ".safetensors";

/// Elements [begin, end) of a parameter, flattened.
struct Span {
  std::int64_t begin = 0, end = 0;
};

/// The elements of a parameter that lie in a range of the flat arrays.
Span within(const model::ParameterInfo& info, const StateRange& range) {
  return {std::max<std::int64_t>(range.begin - info.offset, 0), std::min(range.end - info.offset, info.size)};
}

std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

using StateFiles = std::span<const model::SafetensorsReader>;

/// A value of a state file's metadata.
std::string text(const model::SafetensorsReader& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end()) return found->second;
  throw data::Error("{}: metadata {}: found nothing, expected a value (an earlier version did not write this key)",
                    file.file().string(), key);
}
std::int64_t number(const model::SafetensorsReader& file, const std::string& key) {
  const std::string found = text(file, key);
  if (const auto value = integer(found); value && *value >= 0) return *value;
  throw data::Error("{}: metadata {}: found '{}', expected an integer of at least 0", file.file().string(), key,
                    data::shortened(found));
}

/// How many ranks wrote a file of this name: 4 of train_state-00001-of-00004.safetensors.
int ranks_of(const std::string& name) {
  const auto of = name.find("-of-");
  if (of == std::string::npos) return 1;
  const auto ranks = integer(std::string_view(name).substr(of + 4, name.size() - of - 4 - kSuffix.size()));
  return static_cast<int>(std::clamp<std::int64_t>(ranks.value_or(1), 1, std::numeric_limits<int>::max()));
}

/// All state files of a checkpoint, in the order of ranks.
std::vector<model::SafetensorsReader> open_state_files(const fs::path& dir) {
  std::vector<std::string> names;
  for (const data::ManifestEntry& entry : data::list_manifest(dir)) {
    if (entry.name.starts_with(kStem) && entry.name.ends_with(kSuffix)) names.push_back(entry.name);
  }
  std::ranges::sort(names);
  const int ranks = names.empty() ? 1 : ranks_of(names.front());
  std::vector<model::SafetensorsReader> files;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string expected = state_file_name({.rank = rank, .size = ranks});
    if (!std::ranges::binary_search(names, expected))
      throw data::Error("{}: MANIFEST.json lists {} state files, expected {} among them", dir.string(), names.size(),
                        expected);
    files.emplace_back(dir / expected);
  }
  if (files.size() != names.size())
    throw data::Error("{}: MANIFEST.json lists {} state files, expected {} as {} is named", dir.string(), names.size(),
                      files.size(), names.front());
  return files;
}

/// A stored stretch of one slot of a parameter.
struct Piece {
  Span span;
  std::size_t file = 0;
  const model::SafetensorsEntry* entry = nullptr;
};

/// What the name of a stored tensor says.
struct Named {
  std::size_t slot = 0, parameter = 0;
  Span span;
};

/// Reads the part of a name after "SLOT.": PARAMETER or PARAMETER[begin:end]. Returns nothing for any other text.
std::optional<Named> parse_parameter(std::size_t slot, const std::string& text,
                                     const std::map<std::string, std::size_t>& parameters,
                                     const model::ParameterLayout& layout) {
  const auto bracket = text.find('['), colon = text.find(':');
  const auto found = parameters.find(text.substr(0, bracket));
  if (found == parameters.end()) return std::nullopt;
  const std::int64_t size = layout.all()[found->second].size;
  if (bracket == std::string::npos) return Named{slot, found->second, {0, size}};
  if (colon == std::string::npos || colon < bracket || !text.ends_with(']')) return std::nullopt;
  const auto begin = integer(std::string_view(text).substr(bracket + 1, colon - bracket - 1));
  const auto end = integer(std::string_view(text).substr(colon + 1, text.size() - colon - 2));
  if (!begin || !end || *begin < 0 || *begin >= *end || *end > size) return std::nullopt;
  return Named{slot, found->second, {*begin, *end}};
}

std::optional<Named> parse_name(const std::string& name, const std::vector<std::string>& slots,
                                const std::map<std::string, std::size_t>& parameters,
                                const model::ParameterLayout& layout) {
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    const std::string prefix = slots[slot] + ".";
    if (name.starts_with(prefix)) return parse_parameter(slot, name.substr(prefix.size()), parameters, layout);
  }
  return std::nullopt;
}

/// The stored pieces of every slot of every parameter, [slot][parameter], each complete and in order.
using Pieces = std::vector<std::vector<std::vector<Piece>>>;

void check_complete(const std::vector<Piece>& pieces, const model::ParameterInfo& info, const std::string& name,
                    StateFiles files) {
  const fs::path dir = files.front().file().parent_path();
  std::int64_t next = 0;
  const auto missing = [&](std::int64_t until) {
    throw data::Error("{}: {}: elements {} to {} of {} are in no state file, expected in one", dir.string(), name, next,
                      until, info.size);
  };
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Span& span = pieces[i].span;
    if (span.begin > next) missing(span.begin);
    if (span.begin < next)
      throw data::Error("{}: {}: elements {} to {} are in {} too, expected in one",
                        files[pieces[i].file].file().string(), name, span.begin, std::min(next, span.end),
                        files[pieces[i - 1].file].file().filename().string());
    next = span.end;
  }
  if (next < info.size) missing(info.size);
}

Pieces find_pieces(StateFiles files, const std::vector<std::string>& slots, const model::ParameterLayout& layout) {
  std::map<std::string, std::size_t> parameters;
  for (std::size_t p = 0; p < layout.all().size(); ++p) parameters[layout.all()[p].name] = p;
  Pieces pieces(slots.size(), std::vector<std::vector<Piece>>(layout.all().size()));
  for (std::size_t file = 0; file < files.size(); ++file) {
    for (const model::SafetensorsEntry& entry : files[file].entries()) {
      const auto named = parse_name(entry.name, slots, parameters, layout);
      if (!named)
        throw data::Error("{}: {}: found an unknown tensor, expected only {} of this model's parameters",
                          files[file].file().string(), data::shortened(entry.name), fmt::join(slots, ", "));
      const auto stored = static_cast<std::int64_t>((entry.end - entry.begin) / kernels::size_of(entry.dtype));
      if (stored != named->span.end - named->span.begin)
        throw data::Error("{}: {}: found {} elements, expected {}", files[file].file().string(),
                          data::shortened(entry.name), stored, named->span.end - named->span.begin);
      pieces[named->slot][named->parameter].push_back({named->span, file, &entry});
    }
  }
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    for (std::size_t p = 0; p < layout.all().size(); ++p) {
      auto& found = pieces[slot][p];
      std::ranges::sort(found, {}, [](const Piece& piece) { return std::pair(piece.span.begin, piece.span.end); });
      check_complete(found, layout.all()[p], slots[slot] + "." + layout.all()[p].name, files);
    }
  }
  return pieces;
}

}  // namespace

std::string state_file_name(const kernels::Place& place) {
  if (place.size == 1) return fmt::format("{}{}", kStem, kSuffix);
  return fmt::format("{}-{:05}-of-{:05}{}", kStem, place.rank + 1, place.size, kSuffix);
}

std::map<std::string, std::string> state_metadata(const TrainState& state) {
  return {{"step", std::to_string(state.step)},          {"next_batch", std::to_string(state.next_batch)},
          {"skipped", std::to_string(state.skipped)},    {"tokens_seen", std::to_string(state.tokens_seen)},
          {"seed", std::to_string(state.seed)},          {"train_fingerprint", state.train_fingerprint},
          {"valid_fingerprint", state.valid_fingerprint}};
}

std::vector<StateTensor> state_tensors(const model::ParameterLayout& layout, const OptimizerState& state) {
  std::vector<StateTensor> tensors;
  for (const model::ParameterInfo& info : layout.all()) {
    for (std::size_t slot = 0; slot < state.slots.size(); ++slot) {
      const std::string name = state.slots[slot] + "." + info.name;
      std::optional<Span> stretch;  // of the parameter: what tensors.back() holds
      const auto name_last = [&] {
        if (!stretch) return;
        const bool whole = stretch->begin == 0 && stretch->end == info.size;
        tensors.back().name = whole ? name : fmt::format("{}[{}:{}]", name, stretch->begin, stretch->end);
        tensors.back().shape = whole ? info.shape : std::vector<std::int64_t>{stretch->end - stretch->begin};
      };
      for (const StateRange& range : state.ranges) {
        const Span span = within(info, range);
        if (!range.written || span.begin >= span.end) continue;
        if (!stretch || stretch->end != span.begin) {
          name_last();
          tensors.emplace_back();
          stretch = Span{span.begin, span.begin};
        }
        tensors.back().parts.push_back(
            range.state[slot].slice(info.offset + span.begin - range.begin, {span.end - span.begin}));
        stretch->end = span.end;
      }
      name_last();
    }
  }
  return tensors;
}

int ranks_of_state(const data::CheckpointEntry& checkpoint) {
  const std::vector<data::ManifestEntry> files = data::list_manifest(checkpoint.dir);
  return static_cast<int>(
      std::ranges::count_if(files, [](const data::ManifestEntry& file) { return file.name.starts_with(kStem); }));
}

TrainState read_train_state(StateFiles files, std::int64_t step) {
  const model::SafetensorsReader& first = files.front();
  TrainState state{.step = number(first, "step"),
                   .next_batch = number(first, "next_batch"),
                   .skipped = number(first, "skipped"),
                   .tokens_seen = number(first, "tokens_seen"),
                   .seed = number(first, "seed"),
                   .train_fingerprint = text(first, "train_fingerprint"),
                   .valid_fingerprint = text(first, "valid_fingerprint")};
  if (state.step != step)
    throw data::Error("{}: metadata step: found {}, expected {} as the directory is named", first.file().string(),
                      state.step, step);
  for (const model::SafetensorsReader& file : files) {
    for (const auto& [key, value] : state_metadata(state)) {
      if (const std::string found = text(file, key); found != value)
        throw data::Error("{}: metadata {}: found {}, expected {} as in {}", file.file().string(), key,
                          data::shortened(found), data::shortened(value), first.file().filename().string());
    }
  }
  return state;
}

TrainState read_train_state(const data::CheckpointEntry& checkpoint) {
  return read_train_state(open_state_files(checkpoint.dir), checkpoint.step);
}

void read_optimizer_state(StateFiles files, const model::ParameterLayout& layout, const OptimizerState& state) {
  const Pieces pieces = find_pieces(files, state.slots, layout);
  for (const StateRange& range : state.ranges) {
    for (std::size_t slot = 0; slot < state.slots.size(); ++slot) {
      const kernels::Tensor to = range.state[slot];
      kernels::fill(to, 0.0, kernels::Stream{.device = to.device});
      for (std::size_t p = 0; p < layout.all().size(); ++p) {
        const model::ParameterInfo& info = layout.all()[p];
        const Span needed = within(info, range);
        if (needed.begin >= needed.end) continue;
        for (const Piece& piece : pieces[slot][p]) {
          const Span span{std::max(needed.begin, piece.span.begin), std::min(needed.end, piece.span.end)};
          if (span.begin >= span.end) continue;
          files[piece.file].read_elements(piece.entry->name, span.begin - piece.span.begin,
                                          to.slice(info.offset + span.begin - range.begin, {span.end - span.begin}));
        }
      }
    }
  }
}

void read_optimizer_state(const data::CheckpointEntry& checkpoint, const model::ParameterLayout& layout,
                          const OptimizerState& state) {
  read_optimizer_state(open_state_files(checkpoint.dir), layout, state);
}

}  // namespace routescope::train
