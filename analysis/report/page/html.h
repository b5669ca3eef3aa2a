// The page of a study: one HTML file with its style, scripts and data inside, which needs no other file and no network.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace routescope::analysis {

/// The page that shows page_data(). No text in the data can end its element or act as markup.
std::string study_page(const nlohmann::json& data);

}  // namespace routescope::analysis
