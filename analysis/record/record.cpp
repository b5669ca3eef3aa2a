#include "analysis/record/record.h"

#include <fmt/chrono.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ctime>

#include "analysis/findings/findings.h"
#include "analysis/record/record_findings.h"
#include "analysis/record/record_read.h"
#include "analysis/record/record_write.h"
#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::analysis {
namespace {

/// How two sets of tokens differ; empty if they do not.
std::string first_difference(const ProbeTokens& found, const ProbeTokens& expected) {
  if (found.sequences != expected.sequences || found.positions != expected.positions) {
    return fmt::format("found {} sequences of {} tokens, expected {} of {}", found.sequences, found.positions,
                       expected.sequences, expected.positions);
  }
  if (found.ids == expected.ids) return "";
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

AnalysisRecord load_record(const std::filesystem::path& file) {
  return read_record(file);
}

void save_record(AnalysisRecord& record, const std::filesystem::path& file) {
  if (record.created.empty()) record.created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  const Findings findings = record.rows.empty() ? Findings{} : find(record);
  data::write_atomically(file, [&](const std::filesystem::path& partial) {
    data::hdf5::File out = data::hdf5::File::create(partial);
    write_record(out, record);
    write_findings(out, record.identity, findings);
    out.close();
  });
}

AnalysisRecord open_record(const std::filesystem::path& file, const ProbeIdentity& identity) {
  if (!std::filesystem::exists(file)) return AnalysisRecord{identity, {}, {}};
  AnalysisRecord record = load_record(file);
  const ProbeIdentity& was = record.identity;
  const auto refuse_if = [&](const char* what, const std::string& difference) {
    if (difference.empty()) return;
    throw data::Error("{}: {}: {}: name another file with --out, or remove this one", file.string(), what, difference);
  };
  refuse_if("attribute settings", first_difference(was.settings, identity.settings));
  refuse_if("/probe_tokens", first_difference(was.tokens, identity.tokens));
  refuse_if("/patch_tokens", first_difference(was.patch, identity.patch));
  refuse_if("token classes", first_difference(was.classes, identity.classes));
  if (was.model_config != identity.model_config) {
    refuse_if("attribute model_config", fmt::format("found {}, expected {}", was.model_config, identity.model_config));
  }
  if (was.sets != identity.sets) {
    refuse_if("/slice", fmt::format("found {}, expected {}", fmt::join(was.sets, " "), fmt::join(identity.sets, " ")));
  }
  return record;
}

}  // namespace routescope::analysis
