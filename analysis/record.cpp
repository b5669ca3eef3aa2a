#include "analysis/record.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <limits>

#include "analysis/statistics.h"
#include "data/command_line.h"
#include "data/error.h"
#include "data/files.h"
#include "data/hdf5.h"

namespace routescope {
namespace {

constexpr const char* filetype = "routescope analysis";
// A string literal, made by the build.
constexpr const char* git_commit =
#include "git_commit.inc"
    ;
constexpr std::int64_t version_major = 1, version_minor = 0;

constexpr const char* mass_metric =
    "alpha summed over the family's sources, mean over the slice's reads and all tokens; a read without the family "
    "weighs 0";
constexpr const char* nll_metric =
    "negative log-likelihood of the next token, mean over the predicted tokens of a sequence, then over sequences";
constexpr const char* delta_metric =
    "nll of the ablated minus nll of the intact model, mean over the predicted tokens of a sequence, then over "
    "sequences";
constexpr const char* mask_intervention =
    "mask: logit = -inf on the family's sources in the slice's reads, softmax over the rest; a read that would keep no "
    "source is left alone";

std::string input_distribution(const ProbeTokens& tokens) {
  return fmt::format("{}: {} sequences of {} tokens", tokens.origin, tokens.sequences, tokens.positions);
}

/// A field of every row, one row after the other.
template <class Member>
std::vector<double> gather(const std::vector<ProbeRow>& rows, const Member& member) {
  std::vector<double> out;
  for (const ProbeRow& row : rows) {
    const std::vector<double>& values = member(row);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

void set_estimand(hdf5::Object& object, const ProbeIdentity& identity, const char* intervention, const char* metric,
                  const char* unit) {
  object.set("input_distribution", input_distribution(identity.tokens));
  object.set("intervention", intervention);
  object.set("metric", metric);
  object.set("unit", unit);
  object.set("n", identity.tokens.sequences);
  object.set("seed", static_cast<std::int64_t>(identity.settings.seed));
}

void write_labels(hdf5::File& file, const ProbeIdentity& identity, const std::vector<ProbeRow>& rows) {
  std::vector<std::string> slice, family, sublayer, depth;
  for (const char* f : {"embedding", "history", "current"}) {
    for (const char* s : {"attn", "mlp"}) {
      for (const char* d : {"early", "mid", "late"}) {
        slice.push_back(std::string(f) + "." + s + "." + d);
        family.emplace_back(f);
        sublayer.emplace_back(s);
        depth.emplace_back(d);
      }
    }
  }
  std::vector<std::int64_t> step;
  std::vector<std::int32_t> sequence, position;
  std::vector<std::string> sha256;
  for (const ProbeRow& row : rows) step.push_back(row.step);
  for (const ProbeRow& row : rows) sha256.push_back(row.model_sha256);
  for (std::int64_t i = 0; i < identity.tokens.sequences; ++i) sequence.push_back(static_cast<std::int32_t>(i));
  for (std::int64_t i = 0; i < identity.tokens.positions; ++i) position.push_back(static_cast<std::int32_t>(i));
  const auto count = static_cast<std::int64_t>(rows.size());
  file.write("step", step, {count},
             {.units = "1", .description = "training step of the probed model; 0 for a bare model", .axes = {"step"}});
  file.write("slice", slice, {.description = "family.sublayer.depth", .axes = {"slice"}});
  file.write("seq", sequence, {identity.tokens.sequences},
             {.units = "1", .description = "probe sequence, from 0", .axes = {"seq"}});
  file.write("pos", position, {identity.tokens.positions},
             {.units = "1", .description = "token of a sequence, from 0", .axes = {"pos"}});
  file.write("bound", std::vector<std::string>{"lower", "upper"},
             {.description = "ends of an interval", .axes = {"bound"}});
  file.write("family", family, {.description = "source family of the slice", .axes = {"slice"}});
  file.write("sublayer", sublayer, {.description = "sublayer kind of the slice's reads", .axes = {"slice"}});
  file.write("depth", depth, {.description = "third of the model that the slice's layers lie in", .axes = {"slice"}});
  file.write("model_sha256", sha256, {.description = "SHA-256 of the probed model.safetensors", .axes = {"step"}});
  file.write(
      "probe_tokens", identity.tokens.ids, {identity.tokens.sequences, identity.tokens.positions},
      {.units = "1", .description = "the tokens that all of it is measured on", .axes = {"seq", "pos"}, .deflate = 4});
}

void write_root(hdf5::File& file, const AnalysisRecord& record) {
  file.set("filetype", filetype);
  file.set("version", std::vector<std::int64_t>{version_major, version_minor});
  file.set("routescope_version", routescope_version());
  if (*git_commit) file.set("git_commit", git_commit);
  file.set("created", record.created);
  file.set("model_config", record.identity.model_config);
  file.set("probe_origin", record.identity.tokens.origin);
}

void write_intact(hdf5::File& file, const ProbeIdentity& identity, const std::vector<ProbeRow>& rows) {
  const auto steps = static_cast<std::int64_t>(rows.size());
  hdf5::Dataset mass = file.write(
      "mass",
      gather(
          rows, [](const ProbeRow& row) -> const auto& { return row.mass; }),
      {steps, num_slices}, {.units = "1", .description = "routing mass of the slice", .axes = {"step", "slice"}});
  set_estimand(mass, identity, "none", mass_metric, "1");
  hdf5::Group intact = file.create_group("intact");
  set_estimand(intact, identity, "none", nll_metric, "nat/token");
  std::vector<double> nll;
  for (const ProbeRow& row : rows) nll.push_back(row.intact_nll);
  intact.write("nll", nll, {steps}, {.units = "nat/token", .description = "nll of the intact model", .axes = {"step"}});
  intact.write("nll_sequence",
               gather(
                   rows, [](const ProbeRow& row) -> const auto& { return row.intact_nll_sequence; }),
               {steps, identity.tokens.sequences},
               {.units = "nat/token", .description = "nll of each sequence", .axes = {"step", "seq"}, .deflate = 4});
}

void write_effects(hdf5::File& file, const std::string& name, const ProbeIdentity& identity,
                   const std::vector<ProbeRow>& rows) {
  const auto steps = static_cast<std::int64_t>(rows.size());
  hdf5::Group group = file.create_group(name);
  set_estimand(group, identity, mask_intervention, delta_metric, "nat/token");
  group.set("interval", fmt::format("{:g} % BCa bootstrap over sequences, {} resamples, expanded by sqrt(n/(n-1)) t",
                                    100 * interval_level, bootstrap_resamples));
  group.set("test", fmt::format("two-sided sign flips of the sequences' differences: all 2^n for n <= {}, else {} "
                                "random ones; Holm over the slices with coverage > 0",
                                exact_sign_flip_n, sign_flips));
  const auto write = [&](const char* field, const char* units, const char* description,
                         std::vector<double> AblationEffects::*member) {
    group.write(field,
                gather(
                    rows, [&](const ProbeRow& row) -> const auto& { return row.effects(Ablation::mask).*member; }),
                {steps, num_slices}, {.units = units, .description = description, .axes = {"step", "slice"}});
  };
  write("delta_nll", "nat/token", "effect of the ablation; NaN where it can change nothing",
        &AblationEffects::delta_nll);
  write("p_value", "1", "two-sided p value of no effect", &AblationEffects::p_value);
  write("p_adjusted", "1", "p_value, adjusted by Holm's method over the slices of a step",
        &AblationEffects::p_adjusted);
  write("kl", "nat/token", "KL(intact || ablated) of the next-token distributions, mean over predicted tokens",
        &AblationEffects::kl);
  write("top1_agreement", "1", "share of predicted tokens whose likeliest token stays",
        &AblationEffects::top1_agreement);
  write("coverage", "1", "share of the slice's reads and tokens that the ablation could change",
        &AblationEffects::coverage);
  std::vector<double> bounds;
  for (const ProbeRow& row : rows) {
    for (std::size_t s = 0; s < num_slices; ++s) {
      bounds.push_back(row.effects(Ablation::mask).ci_lower[s]);
      bounds.push_back(row.effects(Ablation::mask).ci_upper[s]);
    }
  }
  group.write("delta_nll_ci", bounds, {steps, num_slices, 2},
              {.units = "nat/token", .description = "interval of delta_nll", .axes = {"step", "slice", "bound"}});
  group.write(
      "delta_nll_sequence",
      gather(
          rows, [](const ProbeRow& row) -> const auto& { return row.effects(Ablation::mask).delta_nll_sequence; }),
      {steps, num_slices, identity.tokens.sequences},
      {.units = "nat/token",
       .description = "delta_nll of each sequence",
       .axes = {"step", "slice", "seq"},
       .deflate = 4});
}

/// Row `i` of a dataset whose rows have `width` values.
std::vector<double> cut(const std::vector<double>& values, std::size_t i, std::size_t width) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

std::vector<double> read_checked(const hdf5::File& file, const std::string& path, const hdf5::Shape& expected) {
  const hdf5::Dataset dataset = file.dataset(path);
  if (dataset.shape() != expected) {
    throw Error("{}: found shape [{}], expected [{}]", dataset.where(), fmt::join(dataset.shape(), ", "),
                fmt::join(expected, ", "));
  }
  return dataset.read<double>();
}

}  // namespace

const ProbeRow* AnalysisRecord::find(std::int64_t step) const {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const ProbeRow& row) { return row.step == step; });
  return found == rows.end() ? nullptr : &*found;
}

void AnalysisRecord::put(ProbeRow row) {
  const auto place = std::lower_bound(rows.begin(), rows.end(), row.step,
                                      [](const ProbeRow& r, std::int64_t step) { return r.step < step; });
  if (place != rows.end() && place->step == row.step) {
    *place = std::move(row);
  } else {
    rows.insert(place, std::move(row));
  }
}

void AnalysisRecord::save(const std::filesystem::path& file) {
  if (created.empty()) created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  write_atomically(file, [&](const std::filesystem::path& partial) {
    hdf5::File out = hdf5::File::create(partial);
    write_root(out, *this);
    write_labels(out, identity, rows);
    write_intact(out, identity, rows);
    write_effects(out, "mask", identity, rows);
    out.close();
  });
}

AnalysisRecord AnalysisRecord::load(const std::filesystem::path& path) {
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has("filetype") || file.text("filetype") != filetype) {
    throw Error("{}: attribute filetype: found '{}', expected '{}'", path.string(),
                file.has("filetype") ? file.text("filetype") : "nothing", filetype);
  }
  const std::vector<std::int64_t> version = file.integers("version");
  // The file is written whole: what a newer version added would be lost.
  if (version.size() != 2 || version[0] != version_major || version[1] > version_minor) {
    throw Error("{}: attribute version: found [{}], expected [{}, 0] to [{}, {}]", path.string(),
                fmt::join(version, ", "), version_major, version_major, version_minor);
  }
  AnalysisRecord record;
  record.created = file.text("created");
  record.identity.model_config = file.text("model_config");
  record.identity.settings.seed = static_cast<std::uint64_t>(file.group("mask").integer("seed"));
  hdf5::Shape shape;
  record.identity.tokens.ids = file.read<std::int32_t>("probe_tokens", &shape);
  if (shape.size() != 2) throw Error("{}: /probe_tokens: found {} axes, expected 2", path.string(), shape.size());
  record.identity.tokens.sequences = shape[0];
  record.identity.tokens.positions = shape[1];
  record.identity.tokens.origin = file.text("probe_origin");

  const auto steps = file.read<std::int64_t>("step");
  const auto sha256 = file.read_text("model_sha256");
  const auto count = static_cast<std::int64_t>(steps.size()), sequences = shape[0];
  if (sha256.size() != steps.size())
    throw Error("{}: /model_sha256: found {} rows, expected {}", path.string(), sha256.size(), count);
  record.rows.resize(steps.size());
  for (ProbeRow& row : record.rows) row.ablations.emplace_back();
  const auto read = [&](const std::string& name, hdf5::Shape expected, const auto& target) {
    const std::vector<double> values = read_checked(file, name, expected);
    const std::size_t width = steps.empty() ? 0 : values.size() / steps.size();
    for (std::size_t i = 0; i < steps.size(); ++i) target(record.rows[i]) = cut(values, i, width);
  };
  const auto read_effect = [&](const char* name, std::vector<double> AblationEffects::*member) {
    read(
        std::string("mask/") + name,
        {count, num_slices}, [&](ProbeRow & row) -> auto& { return row.ablations.front().*member; });
  };
  read(
      "mass", {count, num_slices}, [](ProbeRow & row) -> auto& { return row.mass; });
  read(
      "intact/nll_sequence", {count, sequences}, [](ProbeRow & row) -> auto& { return row.intact_nll_sequence; });
  read(
      "mask/delta_nll_sequence", {count, num_slices, sequences},
      [](ProbeRow & row) -> auto& { return row.ablations.front().delta_nll_sequence; });
  read_effect("delta_nll", &AblationEffects::delta_nll);
  read_effect("p_value", &AblationEffects::p_value);
  read_effect("p_adjusted", &AblationEffects::p_adjusted);
  read_effect("kl", &AblationEffects::kl);
  read_effect("top1_agreement", &AblationEffects::top1_agreement);
  read_effect("coverage", &AblationEffects::coverage);
  const std::vector<double> nll = read_checked(file, "intact/nll", {count});
  const std::vector<double> bounds = read_checked(file, "mask/delta_nll_ci", {count, num_slices, 2});
  for (std::size_t i = 0; i < steps.size(); ++i) {
    ProbeRow& row = record.rows[i];
    row.step = steps[i];
    row.model_sha256 = sha256[i];
    row.intact_nll = nll[i];
    for (std::size_t s = 0; s < num_slices; ++s) {
      row.ablations.front().ci_lower.push_back(bounds[(i * num_slices + s) * 2]);
      row.ablations.front().ci_upper.push_back(bounds[(i * num_slices + s) * 2 + 1]);
    }
  }
  return record;
}

AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity) {
  if (!std::filesystem::exists(file)) return AnalysisRecord{identity, {}, {}};
  AnalysisRecord record = AnalysisRecord::load(file);
  const ProbeTokens &was = record.identity.tokens, &now = identity.tokens;
  constexpr const char* remedy = "name another file with --out, or remove this one";
  if (was.sequences != now.sequences || was.positions != now.positions) {
    throw Error("{}: was probed on {} sequences of {} tokens, now {} of {}: {}", file.string(), was.sequences,
                was.positions, now.sequences, now.positions, remedy);
  }
  if (was.ids != now.ids)
    throw Error("{}: was probed on other tokens ({}) than now ({}): {}", file.string(), was.origin, now.origin, remedy);
  if (record.identity.settings.seed != identity.settings.seed) {
    throw Error("{}: was probed with seed {}, now {}: {}", file.string(), record.identity.settings.seed,
                identity.settings.seed, remedy);
  }
  if (record.identity.model_config != identity.model_config) {
    throw Error("{}: holds probes of another model (attribute model_config): {}", file.string(), remedy);
  }
  return record;
}

}  // namespace routescope
