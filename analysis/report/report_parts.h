// The parts that report_data() puts together.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "analysis/report/report.h"

namespace routescope::analysis::report {

/// Four significant digits; JSON has no NaN, so null is what is not there (or not finite).
nlohmann::json number(double value);
nlohmann::json numbers(const std::vector<double>& values);
/// [value, lower, upper]
nlohmann::json estimate(const Estimate& estimate);
/// The same of training steps, which are exact.
nlohmann::json step(double value);
nlohmann::json steps(const Estimate& estimate);

/// "early MLP ← embedding" for a slice's name, any other name as it is.
std::string set_title(const std::string& name);
/// The same of a motif's slices together: "early attention and MLP ← current".
std::string motif_title(const std::vector<int>& slices);

/// The rows of a subject, their sets in the order of `sets` (null where it lacks one).
nlohmann::json subject_data(const ReportSubject& subject, const std::vector<std::string>& sets);
nlohmann::json motif_data(const Findings& findings);
/// Of the rows that have one, thinned to `most_numbers`.
nlohmann::json atlas_data(const std::vector<ProbeRow>& rows, std::size_t most_numbers);
/// Per-token weights as bytes (weight * 254, 255 for none) in base64, cut to `most_weights`.
nlohmann::json text_data(const RoutedText& text, std::size_t reads, std::size_t columns, std::size_t most_weights);

/// The three claims of the paper and what the findings say of them, in words: [{claim, verdict, tone, evidence:
/// [...]}], tone yes | part | no | open.
nlohmann::json claims(const ReportInput& input);

/// At most `count` of n indices, evenly, the first and the last among them.
std::vector<std::size_t> thinned(std::size_t n, std::size_t count);

}  // namespace routescope::analysis::report
