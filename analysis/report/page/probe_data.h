// What the probes found, as JSON for the page's figures and tables.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"

namespace routescope::analysis {

/// Rows of a record and what was found in them, with the values of sets in the order of `sets` (null for a set that the
/// record lacks). At most so many rows, evenly chosen.
nlohmann::json probes_data(const std::string& name, const AnalysisRecord& record, const Findings& findings,
                           const std::vector<std::string>& sets, std::size_t most_rows);
/// The curves of the motifs over the steps of the findings.
nlohmann::json motifs_data(const Findings& findings);
/// What keys and values do together, for each of the chosen rows, on each of the page's sets, of the record's `own`; of
/// every donor that the last row has.
nlohmann::json interactions_data(const Findings& findings, const std::vector<std::string>& sets,
                                 const std::vector<std::string>& own, const std::vector<std::size_t>& rows);
/// Mass against effect, for each of the chosen rows.
nlohmann::json dissociation_data(const Findings& findings, const std::vector<std::size_t>& rows);
/// Of the rows that have an atlas, thinned to `most_numbers`.
nlohmann::json atlas_data(const std::vector<ProbeRow>& rows, std::size_t most_numbers);

}  // namespace routescope::analysis
