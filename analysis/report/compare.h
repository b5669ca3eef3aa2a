// Several runs of one configuration as one study: loaded together, pooled, and said as a file, claims and a page.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/record/study_file.h"
#include "model/files/config.h"

namespace routescope::analysis {

/// What a row's number is over the runs: their mean and their range. Runs without the number are left out.
struct OverRuns {
  double mean = std::numeric_limits<double>::quiet_NaN(), least = mean, greatest = mean;
};
OverRuns over_runs(std::span<const double> values);

/// `runs` are run directories with an analysis.h5 of the 18 slices; `baseline` an analysis.h5, or empty. Throws Error
/// naming a file that lacks what is needed, or runs that have no step, tokens or configuration in common.
Study load_study(std::span<const std::string> runs, const std::filesystem::path& baseline, const std::string& about);
/// Of records that are in memory; names are unique. What load_study() ends with.
Study make_study(std::vector<StudyRun> runs, std::optional<AnalysisRecord> baseline, const std::string& about);

/// The model that every run trained.
model::ModelConfig study_model(const Study& study);

/// One of the paper's claims beside what the study finds.
struct Claim {
  std::string title;                  // the claim
  std::string verdict;                // a few words
  std::vector<std::string> evidence;  // sentences, plain text
};
/// The three claims, worded from the numbers of the last step.
std::vector<Claim> claims_of(const Study& study);

/// index.html: self-contained, without scripts.
std::string study_page(const Study& study);
/// The page's figures, SVG elements.
std::string emergence_figure(const Study& study);
std::string plane_figure(const Study& study);
std::string content_figure(const Study& study);
std::string atlas_figure(const Study& study);  // empty without an atlas at the last step

}  // namespace routescope::analysis
