#include "analysis/record/record.h"

#include <fmt/chrono.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ctime>

#include "analysis/findings/findings.h"
#include "analysis/record/record_findings.h"
#include "analysis/record/record_parts.h"
#include "analysis/record/record_read.h"
#include "analysis/record/record_write.h"
#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::analysis {
namespace {

std::string documents_of(const ProbeTokens& tokens) {
  if (tokens.documents.empty()) return "documents that are not known";
  return fmt::format("documents {}", fmt::join(tokens.documents, " "));
}

/// How two sets of tokens differ; empty if they do not.
std::string first_difference(const ProbeTokens& found, const ProbeTokens& expected) {
  if (found.sequences != expected.sequences || found.positions != expected.positions) {
    return fmt::format("found {} sequences of {} tokens, expected {} of {}", found.sequences, found.positions,
                       expected.sequences, expected.positions);
  }
  if (found.answers.empty() != expected.answers.empty())
    return fmt::format("found {}, expected {}", found.is_task() ? "a task" : "tokens that are no task",
                       expected.is_task() ? "a task" : "tokens that are no task");
  if (found.ids == expected.ids && found.answers != expected.answers)
    return fmt::format("found the same tokens with other answers, expected those of {}", expected.origin);
  if (found.ids == expected.ids) {
    if (found.documents == expected.documents) return "";
    return fmt::format("found the same tokens of {}, expected them of {}", documents_of(found), documents_of(expected));
  }
  return fmt::format("found other tokens ({}), expected those of {}", found.origin, expected.origin);
}

std::string first_difference(const std::vector<TokenClasses>& found, const std::vector<TokenClasses>& expected) {
  for (std::size_t i = 0; i < std::max(found.size(), expected.size()); ++i) {
    if (i >= found.size()) return fmt::format("found none, expected {}", expected[i].name);
    if (i >= expected.size()) return fmt::format("found {}, expected none", found[i].name);
    if (found[i].name != expected[i].name || found[i].labels != expected[i].labels)
      return fmt::format("found {} ({}), expected {} ({})", found[i].name, fmt::join(found[i].labels, ", "),
                         expected[i].name, fmt::join(expected[i].labels, ", "));
    if (found[i].of_token != expected[i].of_token)
      return fmt::format("found other tokens in {}, expected those of now", found[i].name);
  }
  return "";
}

}  // namespace

bool record_exists(const std::filesystem::path& file) {
  return std::filesystem::exists(file) || has_parts(file);
}

AnalysisRecord load_record(const std::filesystem::path& file) {
  // The parts first: one that was joined before now is in the file.
  const std::vector<RecordPart> parts = read_parts(file);
  AnalysisRecord record = parts.empty() || std::filesystem::exists(file)
                              ? read_record(data::hdf5::File::open(file))
                              : AnalysisRecord{parts.front().record.identity, {}, {}};
  merge_parts(record, parts);
  return record;
}

void write_record_file(const AnalysisRecord& record, const std::filesystem::path& path) {
  const Findings findings = record.rows.empty() ? Findings{} : find(record);
  data::hdf5::File out = data::hdf5::File::create(path);
  write_record(out, record);
  write_findings(out, record.identity, findings);
  out.close();
}

void save_record(AnalysisRecord& record, const std::filesystem::path& file) {
  if (record.created.empty()) record.created = now();
  data::write_atomically(file, [&](const std::filesystem::path& partial) { write_record_file(record, partial); });
}

AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity) {
  if (!record_exists(file)) return AnalysisRecord{identity, {}, {}};
  AnalysisRecord record = load_record(file);
  const std::string difference = difference_of(record.identity, identity);
  if (!difference.empty())
    throw data::Error("{}: {}: name another file with --out, or remove this one", file.string(), difference);
  return record;
}

std::string difference_of(const ProbeIdentity& found, const ProbeIdentity& expected) {
  const auto named = [](const char* what, const std::string& difference) {
    return difference.empty() ? "" : fmt::format("{}: {}", what, difference);
  };
  if (found.version != expected.version)
    return fmt::format("attribute version: found major version {}, expected {}: its rows were measured otherwise",
                       found.version, expected.version);
  for (const std::string& difference :
       {named("attribute settings", first_difference(found.settings, expected.settings)),
        named("/probe_tokens", first_difference(found.tokens, expected.tokens)),
        named("/patch_tokens", first_difference(found.patch, expected.patch)),
        named("token classes", first_difference(found.classes, expected.classes))})
    if (!difference.empty()) return difference;
  if (found.model_config != expected.model_config) {
    return named("attribute model_config",
                 fmt::format("found {}, expected {}", found.model_config, expected.model_config));
  }
  if (found.preregistration_sha256 != expected.preregistration_sha256) {
    const auto hash = [](const std::string& sha256) { return sha256.empty() ? "none" : sha256; };
    return named("attribute preregistration_sha256",
                 fmt::format("found {}, expected {} (--preregistration)", hash(found.preregistration_sha256),
                             hash(expected.preregistration_sha256)));
  }
  if (found.sets == expected.sets) return "";
  return named("/slice",
               fmt::format("found {}, expected {}", fmt::join(found.sets, " "), fmt::join(expected.sets, " ")));
}

std::string now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace routescope::analysis
