#include "analysis/report/claim_parts.h"

#include <fmt/format.h>

#include "analysis/report/wording.h"
#include "analysis/statistics/documents.h"

namespace routescope::analysis {

std::span<const StudyRun> runs_of(const Study& study) {
  return std::span(study.runs).first(study.pooled_runs());
}

std::string ablation_name(const Study& study) {
  const std::vector<Ablation>& ablations = study.runs.front().record.identity.settings.ablations;
  return ablations.empty() ? "none" : to_string(ablations.front());
}

std::string p_text(double p) {
  if (std::isnan(p)) return "not tested";
  return p < 0.001 ? "p < 0.001" : number_text("p = {:.2g}", p);
}

std::string no_verdict(const Study& study) {
  const ProbeIdentity& identity = study.runs.front().record.identity;
  const std::vector<Learned>& learned = study.findings().learned;
  if (identity.version < analysis_version_major)
    return fmt::format("Not judged: the file is of version {}, which measured less: probe again", identity.version);
  if (learned.empty() || !learned.back().known()) return "Not judged: there is no probe of step 0 to hold it against";
  if (identity.settings.until_decided)
    return "Not judged: with early decisions the number of sequences was not fixed beforehand";
  const std::vector<std::int64_t>& documents = identity.tokens.documents;
  if (!documents.empty() && count_documents(documents) < least_documents)
    return fmt::format("Not judged: the probe sequences come from {} documents, and fewer than {} are too few",
                       count_documents(documents), least_documents);
  if (!learned.back().shown())
    return "Nothing to judge: the model is not shown to have learned more since step 0 than an ablation changes there";
  return "";
}

void add_basis(Claim& out, const Study& study) {
  const std::vector<Learned>& learned = study.findings().learned;
  if (!learned.empty() && learned.back().known()) {
    out.evidence.push_back(fmt::format(
        "Learned since step 0, on the probe tokens: {} nats per token. What counts as no effect lies within \u00b1{}.",
        estimate_text(learned.back().gain, "{:+.3f}"), number_text("{:.4f}", learned.back().margin)));
  }
  const ProbeTokens& tokens = study.runs.front().record.identity.tokens;
  if (tokens.documents.empty()) {
    out.evidence.push_back(
        "The documents of the probe sequences are not known: each counts as independent, and if some come from one "
        "document the intervals are too narrow.");
  } else if (const std::int64_t documents = count_documents(tokens.documents); documents < least_documents) {
    out.evidence.push_back(fmt::format(
        "The probe sequences come from {} document{}: intervals and tests count documents, and fewer than {} "
        "are too few to rely on them.",
        documents, documents == 1 ? "" : "s", least_documents));
  }
}

}  // namespace routescope::analysis
