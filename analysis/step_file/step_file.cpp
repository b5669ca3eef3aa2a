#include "analysis/step_file/step_file.h"

#include <fmt/format.h>

#include <numeric>
#include <stdexcept>

#include "data/base/build.h"
#include "data/base/error.h"
#include "data/base/json.h"
#include "data/records/probe_documents.h"

namespace routescope::analysis {
namespace {

using data::hdf5::Type;

data::hdf5::Dataset checked(const data::hdf5::File& file, const std::string& path, Type type,
                            const data::hdf5::Shape& shape) {
  return data::checked_dataset(file, {.path = path, .type = type}, shape);
}

void write_counts(data::hdf5::File& file, const std::string& axis, std::int64_t length, const char* description) {
  std::vector<std::int32_t> number(static_cast<std::size_t>(length));
  std::iota(number.begin(), number.end(), 0);
  file.write(axis, number, {length}, {.units = "1", .description = description, .axes = {axis}});
}

}  // namespace

void write_root(data::hdf5::File& file, const StepFileFormat& format, const std::string& created,
                const std::string& model_config, const std::string& settings, const ProbeTokens& tokens) {
  file.set("filetype", format.filetype);
  file.set("version", std::vector<std::int64_t>{format.version_major, format.version_minor});
  file.set("routescope_version", data::routescope_version());
  if (const std::string commit = data::git_commit(); !commit.empty()) file.set("git_commit", commit);
  file.set("created", created);
  file.set("model_config", model_config);
  file.set("settings", settings);
  file.set("input_distribution",
           fmt::format("{}: {} sequences of {} tokens", tokens.origin, tokens.sequences, tokens.positions));
}

void check_format(const data::hdf5::File& file, const StepFileFormat& format) {
  const std::string &name = file.file_state().name,
                    found = file.has("filetype") ? data::shortened(file.text("filetype")) : std::string("nothing");
  if (found != format.filetype)
    throw data::Error("{}: attribute filetype: found '{}', expected '{}'", name, found, format.filetype);
  const std::vector<std::int64_t> version = file.integers("version");
  if (version.size() != 2 || version[0] != format.version_major || version[1] > format.version_minor)
    throw data::Error("{}: attribute version: found [{}], expected [{}, {}] or a lower minor version", name,
                      data::shortened(fmt::format("{}", fmt::join(version, ", "))), format.version_major,
                      format.version_minor);
}

void write_tokens(data::hdf5::File& file, const ProbeTokens& tokens) {
  write_counts(file, "seq", tokens.sequences, "sequence, from 0");
  write_counts(file, "pos", tokens.positions, "token of a sequence, from 0");
  file.write("bound", std::vector<std::string>{"lower", "upper"},
             {.description = "ends of an interval", .axes = {"bound"}});
  file.write("probe_tokens", tokens.ids, {tokens.sequences, tokens.positions},
             {.units = "1", .description = "the tokens of all sequences", .axes = {"seq", "pos"}, .deflate = 4})
      .set("origin", tokens.origin);
  const data::RecordField& documents = data::probe_document_field();
  file.write(documents.path, data::stored_documents(tokens.documents, tokens.sequences), {tokens.sequences},
             data::layout_of(documents));
  if (!tokens.is_task()) return;
  std::vector<std::int32_t> position, distractor;
  for (const Answer& answer : tokens.answers) {
    position.push_back(static_cast<std::int32_t>(answer.position));
    distractor.push_back(answer.distractor);
  }
  file.write("answer_position", position, {tokens.sequences},
             {.units = "1", .description = "position of the prompt's last token; the answer follows", .axes = {"seq"}});
  file.write("answer_distractor", distractor, {tokens.sequences},
             {.units = "1", .description = "the distractor's id; -1: none", .axes = {"seq"}});
}

ProbeTokens read_tokens(const data::hdf5::File& file) {
  ProbeTokens tokens;
  tokens.sequences = file.dataset("seq").rows();
  tokens.positions = file.dataset("pos").rows();
  const data::hdf5::Dataset ids = checked(file, "probe_tokens", Type::i32, {tokens.sequences, tokens.positions});
  tokens.ids = ids.read<std::int32_t>();
  tokens.origin = ids.text("origin");
  const data::RecordField& documents = data::probe_document_field();
  tokens.documents =
      data::read_documents(checked(file, documents.path, documents.type, {tokens.sequences}), tokens.sequences);
  if (!file.exists("answer_position")) return tokens;
  const data::hdf5::Dataset at = checked(file, "answer_position", Type::i32, {tokens.sequences});
  const auto position = at.read<std::int32_t>(),
             distractor = checked(file, "answer_distractor", Type::i32, {tokens.sequences}).read<std::int32_t>();
  for (std::size_t q = 0; q < position.size(); ++q) {
    if (position[q] < 0 || position[q] > tokens.positions - 2)
      throw data::Error("{}: element {}: found {}, expected 0 to {}", at.where(), q, position[q], tokens.positions - 2);
    tokens.answers.push_back({position[q], distractor[q]});
  }
  return tokens;
}

std::string difference_of(const ProbeTokens& found, const ProbeTokens& expected) {
  if (found.sequences != expected.sequences || found.positions != expected.positions)
    return fmt::format("/probe_tokens: found {} sequences of {} tokens, expected {} of {}", found.sequences,
                       found.positions, expected.sequences, expected.positions);
  if (found.ids != expected.ids)
    return fmt::format("/probe_tokens: found other tokens ({}), expected those of {}", found.origin, expected.origin);
  if (found.documents != expected.documents) return "/probe_document: found other documents of the same tokens";
  const auto same = [](const Answer& a, const Answer& b) {
    return a.position == b.position && a.distractor == b.distractor;
  };
  if (!std::equal(found.answers.begin(), found.answers.end(), expected.answers.begin(), expected.answers.end(), same))
    return "/answer_position: found other answers of the same tokens";
  return "";
}

void write_steps(data::hdf5::File& file, const std::vector<std::int64_t>& step,
                 const std::vector<std::string>& sha256) {
  file.write("step", step, {std::ssize(step)},
             {.units = "1", .description = "training step of the model; 0 for a bare model", .axes = {"step"}});
  file.write("model_sha256", sha256, {.description = "SHA-256 of its model.safetensors", .axes = {"step"}});
}

std::vector<std::int64_t> read_steps(const data::hdf5::File& file, std::vector<std::string>& sha256) {
  const std::int64_t rows = file.dataset("step").rows();
  auto steps = checked(file, "step", Type::i64, {rows}).read<std::int64_t>();
  sha256 = checked(file, "model_sha256", Type::text, {rows}).read_text();
  std::int64_t before = -1;
  for (std::int64_t step : steps) {
    if (step <= before)
      throw data::Error("{}: /step: found step {} after {}, expected a later one", file.file_state().name, step,
                        before);
    before = step;
  }
  return steps;
}

void expect_row_size(const std::string& path, std::int64_t step, std::size_t found, std::int64_t expected) {
  if (static_cast<std::int64_t>(found) != expected)
    throw std::logic_error(fmt::format("{} of step {}: found {} values, expected {}", path, step, found, expected));
}

}  // namespace routescope::analysis
