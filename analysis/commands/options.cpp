#include "analysis/commands/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "data/base/command_line.h"
#include "data/base/error.h"

namespace routescope::analysis {
namespace {

constexpr int most_positions = 1 << 20, most_sequences = 1 << 30;

/// In one order, whatever was typed: two lists of the same are one measurement.
std::vector<Ablation> in_order(std::vector<Ablation> ablations) {
  std::sort(ablations.begin(), ablations.end());
  ablations.erase(std::unique(ablations.begin(), ablations.end()), ablations.end());
  return ablations;
}

std::vector<Ablation> parse_ablations(const std::vector<std::string>& names) {
  std::vector<Ablation> out;
  for (const std::string& name : names) {
    if (name == "all") {
      for (Ablation one : whole_ablations()) {
        if (donor_of(one) != Donor::text) out.push_back(one);
      }
      continue;
    }
    try {
      out.push_back(ablation_from_string(name));
    } catch (const data::UsageError& wrong) {
      throw data::UsageError("--ablation: {}", wrong.what());
    }
  }
  return in_order(std::move(out));
}

/// Every ablation of each part.
std::vector<Ablation> parse_parts(const std::vector<Ablation>& ablations, const std::vector<std::string>& names) {
  std::vector<Ablation> out;
  for (const std::string& name : names)
    for (Ablation one : ablations) out.push_back(with_part(one, part_from_string(name)));
  return in_order(std::move(out));
}

std::vector<std::string> trimmed_sets(std::vector<std::string> sets) {
  for (std::string& set : sets) {
    const std::size_t first = set.find_first_not_of(' '), last = set.find_last_not_of(' ');
    if (first == std::string::npos) throw data::UsageError("--sets: found an empty name, expected READS[:SOURCES]");
    set = set.substr(first, last - first + 1);
  }
  return sets;
}

void add_task_options(CLI::App& command, ProbeSettings& settings) {
  command
      .add_option(
          "--task", settings.task,
          "In place of tokens: prompts with answers, a JSON object a line (data/formats/tasks.md); only answers "
          "are scored, and what is taken from aligned tokens is taken from the corrupted prompts")
      ->group("Tokens");
  command
      .add_option_function<std::string>(
          "--direction",
          [&settings](const std::string& name) {
            settings.direction = name == "noising" ? Direction::noising : Direction::denoising;
          },
          "Of a task: noising (run the clean prompts) or denoising (run the corrupted ones and take from the clean "
          "ones)")
      ->check(CLI::IsMember({"noising", "denoising"}))
      ->default_str("noising")
      ->group("Tokens");
}

using Names = std::vector<std::string>;

void add_ablation_options(CLI::App& command, ProbeSettings& settings) {
  std::string ablations;
  for (Ablation one : whole_ablations())
    ablations += fmt::format("{}{} ({})", ablations.empty() ? "" : ", ", to_string(one), describe_briefly(one));
  command
      .add_option_function<Names>(
          "--ablation", [&settings](const Names& names) { settings.ablations = parse_ablations(names); },
          "LIST of what is done to each set of routes: " + ablations + "; all: all but patch. Commas between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->default_str("[mask]")
      ->group("Interventions");
  command
      .add_option_function<Names>(
          "--part", [&settings](const Names& names) { settings.ablations = parse_parts(settings.ablations, names); },
          "Of mean, resample and patch: LIST of what of a source is replaced, value (what the read takes from it), key "
          "(what weight it gets) or both. Commas between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group("Interventions");
  command
      .add_option_function<Names>(
          "--downstream",
          [&settings](const Names& names) {
            for (const std::string& name : names) {
              settings.frozen = settings.frozen || name == "frozen";
              settings.direct = settings.direct || name == "direct";
            }
          },
          "LIST of effects: free (total), beside it frozen (all later reads keep their weights: what later routing "
          "repairs) and direct (only the head sees the change). Commas between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"free", "frozen", "direct"}))
      ->default_str("[free]")
      ->group("Interventions");
}

void add_intervention_options(CLI::App& command, ProbeSettings& settings) {
  add_ablation_options(command, settings);
  command
      .add_option_function<Names>(
          "--sets,--set", [&settings](const Names& sets) { settings.sets = trimmed_sets(sets); },
          "Sets of routes, READS[:SOURCES] or a slice's name, semicolons between, or repeated: "
          "'3.attn:block_2; 2.attn-5.mlp:history; all:current'; routes: each single one. Without: the 18 slices")
      ->delimiter(';')
      ->allow_extra_args(false)
      ->group("Interventions");
  data::add_number(
      command, "--controls", settings.controls,
      "For every document N draws of random sources that hold the set's weight, and N that hold its contribution, "
      "ablated alike beside every set (more where documents are few: at least 16 in all); 0: none",
      0, most_controls)
      ->group("Interventions");
  command
      .add_option("--patch-from", settings.patch_from,
                  "For patch: tokens aligned one by one with those of the measurement (file as for --tokens)")
      ->group("Interventions");
}

void add_atlas_options(CLI::App& command, ProbeSettings& settings) {
  CLI::Option* checks = data::add_number(command, "--atlas-checks", settings.atlas_checks,
                                         "Routes really masked to check the atlas: N drawn at random, and the N "
                                         "strongest",
                                         0, most_atlas_checks)
                            ->group("Interventions");
  command
      .add_option_function<std::string>(
          "--atlas",
          [&settings, checks](const std::string& exact) {
            settings.atlas = true;
            if (exact.empty()) return;
            if (exact != "exact") throw data::UsageError("--atlas: found '{}', expected nothing or exact", exact);
            if (checks->count() > 0)
              throw data::UsageError("--atlas exact masks every route: expected no --atlas-checks beside it");
            settings.atlas_checks = most_atlas_checks;
          },
          "Estimated effect of every single route, checked by masking some; exact: by masking every one")
      ->expected(0, 1)
      ->type_name("[exact]")
      ->group("Interventions");
}

void add_writers_option(CLI::App& command, ProbeSettings& settings) {
  command
      .add_flag("--writers", settings.writers,
                "Also mass and effect by writing sublayer; of a standard model these alone")
      ->group("Interventions");
}

void add_statistics_options(CLI::App& command, ProbeSettings& settings) {
  command
      .add_option("--preregistration", settings.preregistration,
                  "File that says beforehand what is tested and how: its SHA-256 is recorded with the first row, and "
                  "later rows are refused without it")
      ->group("Statistics");
  data::add_number(command, "--margin", settings.margin,
                   "Share of what the model has learned since step 0 (a bare model: beyond a uniform guess): an effect "
                   "shown to lie within it, either way, counts as absent",
                   data::above_zero)
      ->group("Statistics");
  command
      .add_flag("--until-decided", settings.until_decided,
                "Stop with a set as soon as its confidence sequence decides: effect or absent")
      ->group("Statistics");
  data::add_number(command, "--look-every", settings.look_every, "Of --until-decided: sequences between two looks", 1,
                   most_sequences)
      ->group("Statistics");
  command
      .add_option_function<std::vector<std::string>>(
          "--by",
          [&settings](const std::vector<std::string>& names) {
            for (const std::string& by : names) (by == "position" ? settings.by_position : settings.by_repeat) = true;
          },
          "Effects also by class of predicted token: position, repeat (seen before in its sequence). Commas "
          "between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"position", "repeat"}))
      ->group("Statistics");
  command
      .add_option("--classes", settings.class_file,
                  "Effects also by these classes of tokens: JSON file {\"class\": [token ids], ...}")
      ->group("Statistics");
  data::add_number(command, "--seed", settings.seed, "Of resampling, controls, intervals and p values", 0,
                   std::numeric_limits<std::int64_t>::max())
      ->group("Statistics");
}

}  // namespace

void add_token_options(CLI::App& command, ProbeSettings& settings) {
  command
      .add_option("--tokens", settings.tokens,
                  "What to measure on: HDF5 file with `tokens` [B, T], or a token shard; without it a run's own probe "
                  "tokens")
      ->group("Tokens");
  data::add_number(command, "--sequences", settings.sequences, "Only the first N sequences (of a shard: 32)", 1,
                   most_sequences)
      ->default_str("")
      ->group("Tokens");
  data::add_number(command, "--sequence-length", settings.positions, "Of a token shard: tokens a sequence", 2,
                   most_positions)
      ->group("Tokens");
}

void add_measurement_options(CLI::App& command, ProbeSettings& settings) {
  add_token_options(command, settings);
  add_task_options(command, settings);
  add_intervention_options(command, settings);
  add_atlas_options(command, settings);
  add_writers_option(command, settings);
  add_statistics_options(command, settings);
}

}  // namespace routescope::analysis
