// report.html: one run as figures, in one file that needs nothing else (the drawing itself is report_template.html).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace routescope {

/// Everything that the figures show, thinned to what a page can hold. Throws Error if there is no run.
nlohmann::json report_data(const std::filesystem::path& run_dir);

/// The page with the data put into it, escaped so that no text of the run can end its place.
std::string report_page(const nlohmann::json& data);

/// Writes the page, complete or absent.
void write_report(const std::filesystem::path& run_dir, const std::filesystem::path& file);

}  // namespace routescope
