// report.html: one run as figures and findings, in one file that needs nothing else. C++ chooses and words what the
// page says; report_template.html and report_*.js draw it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"
#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "model/files/config.h"

namespace routescope::analysis {

/// What to draw, as the command line gives it.
struct ReportRequest {
  std::vector<std::filesystem::path> runs;       // the first is drawn whole, the others are held beside it
  std::vector<std::filesystem::path> baselines;  // analysis.h5 of wrapped models
  std::filesystem::path tokenizer;               // Hugging Face tokenizer.json; empty: bytes, or numbers
  std::filesystem::path text;                    // a dump of chosen tokens; empty: the run's own probe sequences
};

/// Probe results under a name: a run's, or a wrapped baseline's.
struct ReportSubject {
  std::string name;
  bool baseline = false;
  AnalysisRecord analysis;  // with rows
  Findings findings;
};

/// Tokens and how each of them was routed.
struct RoutedText {
  std::int64_t step = 0;
  std::string origin;
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::string> tokens;  // [sequences, positions] UTF-8
  std::vector<float> alpha;         // [reads, sequences, positions, columns]; NaN: no such source
};

/// Everything that a page shows, as values.
struct ReportInput {
  std::string name;
  data::RoutingRecordView record;
  std::optional<model::ModelConfig> config;  // of the newest checkpoint
  std::size_t checkpoints = 0;
  std::vector<ReportSubject> subjects;  // the run itself first, unless it was not probed: then there are none
  std::optional<Findings> pooled;       // of all subjects that are runs, where they are one study
  std::string not_pooled;               // why there is none of several runs
  std::optional<RoutedText> text;
};

/// Throws Error if there is no run, or if what is to be held beside it was not probed.
ReportInput load_report(const ReportRequest& request);

/// Everything that the figures show, thinned to what a page can hold.
nlohmann::json report_data(const ReportInput& input);

/// The page with the data put into it, escaped so that no text of the run can end its place.
std::string report_page(const nlohmann::json& data);

/// Writes the page, complete or absent.
void write_report(const ReportRequest& request, const std::filesystem::path& file);
/// Of one run alone.
void write_report(const std::filesystem::path& run_dir, const std::filesystem::path& file);

}  // namespace routescope::analysis
