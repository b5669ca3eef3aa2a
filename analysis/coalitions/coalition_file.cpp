#include "analysis/coalitions/coalition_file.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "analysis/coalitions/coalition_text.h"
#include "analysis/record/record.h"
#include "analysis/step_file/step_file.h"
#include "data/base/files.h"
#include "data/base/json.h"

namespace routescope::analysis {
namespace {

constexpr StepFileFormat format{"routescope coalitions", 1, 0};

using json = nlohmann::ordered_json;
using Field = data::RowField<CoalitionRow>;
using Names = std::vector<std::string>;
using Values = std::vector<double>;

template <class At>
void add(std::vector<Field>& fields, const std::string& path, Names axes, const std::string& units,
         const std::string& description, const At& at) {
  fields.push_back(data::field_at<CoalitionRow>(path, std::move(axes), units, description, at));
}

Names slice_names() {
  Names out;
  for (std::size_t s = 0; s < num_slices; ++s) out.push_back(slice_name(s));
  return out;
}

Names player_names() {
  Names out;
  for (std::size_t player = 0; player < num_players; ++player) out.push_back(player_name(player));
  return out;
}

/// "a and b"; and of every coalition of players which are present, "none" or "a+b".
Names pair_names() {
  Names out;
  for (const auto& [a, b] : pairs_of(num_slices)) out.push_back(slice_name(a) + " and " + slice_name(b));
  return out;
}
Names coalition_names() {
  Names out;
  for (Coalition present = 0; present < Coalition{1} << num_players; ++present) {
    std::string name;
    for (std::size_t player = 0; player < num_players; ++player)
      if (present >> player & 1) name += (name.empty() ? "" : "+") + player_name(player);
    out.push_back(name.empty() ? "none" : name);
  }
  return out;
}

struct Axis {
  const char* name;
  const char* description;
  Names labels;
};
std::vector<Axis> label_axes() {
  return {{"slice", "family.sublayer.depth", slice_names()},
          {"player", "a family's routes into one sublayer kind", player_names()},
          {"pair", "two slices", pair_names()},
          {"coalition", "the players that are kept", coalition_names()}};
}

void write_axes(data::hdf5::File& file, const CoalitionIdentity& identity) {
  for (const Axis& axis : label_axes())
    file.write(axis.name, axis.labels, {.description = axis.description, .axes = {axis.name}});
  write_tokens(file, identity.tokens);
}

void expect_axes(const data::hdf5::File& file) {
  for (const Axis& axis : label_axes())
    if (file.read_text(axis.name) != axis.labels)
      throw data::Error("{}: /{}: found other names than this program's", file.file_state().name, axis.name);
}

/// Numbers that stand for something else do.
void expect_meanings(const CoalitionRow& row, const std::string& name) {
  for (std::size_t s = 0; s < num_slices; ++s) {
    if (row.in_company[s] > InCompany::undecided)
      throw data::Error("{}: /in_company: step {}: found {}, expected 0 to 3", name, row.step,
                        static_cast<int>(row.in_company[s]));
    const bool redundant = row.in_company[s] == InCompany::redundant;
    if (row.partner[s] < (redundant ? 0 : -1) || row.partner[s] >= (redundant ? num_slices : 0))
      throw data::Error("{}: /partner: step {}: found {}, expected {}", name, row.step, row.partner[s],
                        redundant ? "the number of a slice" : "-1");
  }
}

void add_losses(std::vector<Field>& fields) {
  const auto losses = [&](const char* path, const char* axis, const char* description, Values CoalitionRow::*member) {
    add(fields, path, {axis, "seq"}, "nat/token", description, [member](auto& row) { return &(row.*member); });
  };
  losses("alone_loss", "slice", "what ablating the slice adds to the nll of each sequence", &CoalitionRow::alone_loss);
  losses("kept_loss", "slice", "what ablating every other slice adds", &CoalitionRow::kept_loss);
  losses("pair_loss", "pair", "what ablating both slices adds", &CoalitionRow::pair_loss);
  losses("coalition_loss", "coalition", "what ablating the players outside the coalition adds",
         &CoalitionRow::coalition_loss);
}

void add_verdicts(std::vector<Field>& fields) {
  fields.push_back({{"in_company", {"slice"}, "1", "0 none, 1 idle, 2 redundant, 3 undecided", data::hdf5::Type::u8},
                    [](const CoalitionRow& row) {
                      Values out;
                      for (InCompany one : row.in_company) out.push_back(static_cast<double>(one));
                      return out;
                    },
                    [](CoalitionRow& row, const Values& values) {
                      row.in_company.clear();
                      for (double value : values) row.in_company.push_back(static_cast<InCompany>(std::lround(value)));
                    }});
  add(fields, "partner", {"slice"}, "1", "of a redundant slice the one beside which it does most; else -1",
      [](auto& row) { return &row.partner; });
}

}  // namespace

std::string to_json(const CoalitionSettings& settings) {
  return json{{"seed", settings.seed},
              {"permutations", settings.permutations},
              {"until_width", settings.until_width},
              {"margin", settings.margin}}
      .dump();
}

CoalitionSettings coalition_settings_from_json(const std::string& text, const std::string& where) {
  const json object = data::parse_json<json>(text, where);
  CoalitionSettings out;
  out.seed = data::json_member<std::uint64_t>(object, "seed", where);
  out.permutations = data::json_member<int>(object, "permutations", where);
  out.until_width = data::json_member<double>(object, "until_width", where);
  out.margin = data::json_member<double>(object, "margin", where);
  if (out.seed > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    throw data::Error("{}: seed: found {}, expected at most {}", where, out.seed,
                      std::numeric_limits<std::int64_t>::max());
  if (out.permutations < 0 || out.permutations > most_permutations)
    throw data::Error("{}: permutations: found {}, expected 0 to {}", where, out.permutations, most_permutations);
  if (!(out.until_width >= 0) || !std::isfinite(out.until_width))
    throw data::Error("{}: until_width: found {}, expected a finite number from 0", where, out.until_width);
  if (!(out.margin > 0) || !std::isfinite(out.margin))
    throw data::Error("{}: margin: found {}, expected a finite number above 0", where, out.margin);
  if (object.size() != 4) throw data::Error("{}: found {} keys, expected 4", where, object.size());
  return out;
}

std::vector<Field> coalition_fields() {
  std::vector<Field> fields;
  add(fields, "nll", {}, "nat/token", "nll of the intact model", [](auto& row) { return &row.nll; });
  add(fields, "margin", {}, "nat/token", "an effect that is shown to lie within it counts as none",
      [](auto& row) { return &row.margin; });
  add_estimates(fields, "all", {}, "nat/token", "what ablating every slice adds to the nll", &CoalitionRow::all);
  add(fields, "all_p", {}, "1", "one-sided p value of its being 0 or less; from 0.05 on shares of it are NaN",
      [](auto& row) { return &row.all_p; });
  add(fields, "free_mass", {"slice"}, "1", "mean weight over the reads that the ablation can change",
      [](auto& row) { return &row.free_mass; });
  add_estimates(fields, "alone", {"slice"}, "nat/token", "what ablating the slice adds; NaN: it can change nothing",
                &CoalitionRow::alone);
  add_estimates(fields, "sufficiency", {"slice"}, "1", "share of all that keeping the slice alone saves",
                &CoalitionRow::sufficiency);
  add_estimates(fields, "slice_shapley", {"slice"}, "nat/token",
                "Shapley value over random orders, which the interval counts as a sample; NaN without any",
                &CoalitionRow::slice_shapley);
  add(fields, "orders", {}, "1", "orders of slice_shapley, reverses included", [](auto& row) { return &row.orders; });
  add_estimates(fields, "interaction", {"pair"}, "nat/token", "effect of both minus that of either",
                &CoalitionRow::pair);
  add(fields, "interaction_p", {"pair"}, "1", "two-sided p value of at most the margin, Holm over the pairs",
      [](auto& row) { return &row.pair_p; });
  add_verdicts(fields);
  add_estimates(fields, "shapley", {"player"}, "nat/token", "exact Shapley value", &CoalitionRow::shapley);
  add_estimates(fields, "player_sufficiency", {"player"}, "1", "share of all that keeping the player alone saves",
                &CoalitionRow::player_sufficiency);
  add_losses(fields);
  add(fields, "passes", {}, "1", "what it took, in plain passes over all the tokens",
      [](auto& row) { return &row.passes; });
  add(fields, "seconds", {}, "s", "what it took", [](auto& row) { return &row.seconds; });
  return fields;
}

data::AxisLengths coalition_axes(const CoalitionIdentity& identity) {
  data::AxisLengths axes{{"bound", 2}, {"seq", identity.tokens.sequences}};
  for (const Axis& axis : label_axes()) axes[axis.name] = std::ssize(axis.labels);
  return axes;
}

std::string coalition_name(const std::string& task) {
  return task.empty() ? "coalitions.h5" : fmt::format("coalitions-task-{}.h5", task);
}

CoalitionRecord load_coalitions(const std::filesystem::path& path) {
  const data::hdf5::File file = data::hdf5::File::open(path);
  const std::string& name = file.file_state().name;
  check_format(file, format);
  expect_axes(file);
  CoalitionRecord record;
  record.created = file.text("created");
  record.identity = {read_tokens(file),
                     coalition_settings_from_json(file.text("settings"), name + ": attribute settings"),
                     file.text("model_config")};
  record.rows = read_rows(file, coalition_fields(), coalition_axes(record.identity));
  for (const CoalitionRow& row : record.rows) expect_meanings(row, name);
  return record;
}

void save_coalitions(CoalitionRecord& record, const std::filesystem::path& path) {
  if (record.created.empty()) record.created = now();
  data::write_atomically(path, [&](const std::filesystem::path& partial) {
    data::hdf5::File file = data::hdf5::File::create(partial);
    const CoalitionIdentity& identity = record.identity;
    write_root(file, format, record.created, identity.model_config, to_json(identity.settings), identity.tokens);
    for (const auto& [key, text] : coalition_estimand()) file.set(key, text);
    write_axes(file, identity);
    write_rows(file, record.rows, coalition_fields(), coalition_axes(identity));
    file.close();
  });
}

CoalitionRecord open_coalitions(const std::filesystem::path& file, const CoalitionIdentity& identity) {
  if (!std::filesystem::exists(file)) return {identity, {}, {}};
  CoalitionRecord record = load_coalitions(file);
  if (const std::string difference = difference_of(record.identity, identity); !difference.empty())
    throw data::Error("{}: {}: name another file with --out, or remove this one", file.string(), difference);
  return record;
}

std::string difference_of(const CoalitionIdentity& found, const CoalitionIdentity& expected) {
  if (to_json(found.settings) != to_json(expected.settings))
    return fmt::format("attribute settings: found {}, expected {}", to_json(found.settings),
                       to_json(expected.settings));
  if (found.model_config != expected.model_config)
    return fmt::format("attribute model_config: found {}, expected {}", found.model_config, expected.model_config);
  return difference_of(found.tokens, expected.tokens);
}

}  // namespace routescope::analysis
