// What a probe is asked to measure, and the part of it that a file keeps as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/results/answers.h"
#include "analysis/routes/ablation.h"

namespace routescope::analysis {

/// Everything that the command line says about a measurement.
struct ProbeSettings {
  // Kept in the file as JSON. Two probes that differ in one of these do not belong into one file.
  std::uint64_t seed = 1;  // of resampling, controls and donors; the measurement itself is not random
  std::vector<Ablation> ablations = {Ablation::mask};
  std::vector<std::string> sets = {};  // names of parse_route_set(); empty: the 18 slices
  int controls = 1;      // draws of matched controls on each document, of either kind, at least 16 in all; 0: none
  double margin = 0.01;  // share of what the model has learned: what is shown to lie within it counts as no effect
  bool frozen = false;   // also the effect with the weights of all later reads held: what later routing repairs
  bool direct = false;   // and the part of it that goes from the set's sublayers straight to the head
  bool until_decided = false;   // stop with a set as soon as its confidence sequence decides (sequential.h)
  std::int64_t look_every = 8;  // sequences between two looks at the confidence sequences
  bool by_position = false, by_repeat = false;
  std::string class_file = {};  // JSON: {"class": [token ids], ...}; empty: none

  // Not in the JSON: the file keeps the tokens themselves, and a row may have an atlas or not.
  std::string preregistration = {};          // FILE with what was decided beforehand; the record keeps its checksum
  std::string tokens = {};                   // FILE; empty: the run's own probe tokens
  std::int64_t sequences = 0;                // 0: all
  std::int64_t positions = 256;              // of a token shard
  std::string patch_from = {};               // FILE of the aligned tokens of Ablation::patch
  std::string task = {};                     // FILE of prompts with answers (task_file.h), in place of tokens
  Direction direction = Direction::noising;  // of the task
  bool writers = false;  // also masses and effects by writing sublayer: of a model without reads these alone
  bool atlas = false;
  // Routes that are masked truly to check the atlas: this many drawn at random and as many of the strongest.
  int atlas_checks = 24;

  bool operator==(const ProbeSettings&) const = default;
};

inline constexpr int most_controls = 1000;
inline constexpr int most_atlas_checks = 1 << 20;  // more routes than any model has: --atlas exact

/// Throws UsageError naming the member that has a value which no measurement can have: whatever is written can be read.
void check(const ProbeSettings& settings);

/// One line of JSON, a key for each member that the file keeps.
std::string to_json(const ProbeSettings& settings);
/// Throws Error naming `where` and the key that is missing, unknown, of another kind or out of range.
ProbeSettings settings_from_json(const std::string& text, const std::string& where);

/// The first member in the JSON that differs: "controls: found 4, expected 8" (`found`'s value first); empty if none
/// does. The name of the class file does not count: callers compare the classes that it holds.
std::string first_difference(const ProbeSettings& found, const ProbeSettings& expected);

}  // namespace routescope::analysis
