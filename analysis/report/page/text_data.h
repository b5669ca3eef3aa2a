// A text and the routing of its tokens, as JSON for the page.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>

#include "analysis/report/routed_text.h"

namespace routescope::analysis {

/// Weights of single tokens as bytes (weight * 254, 255 for none) in base64, cut to `most_weights`.
nlohmann::json text_data(const RoutedText& text, std::size_t reads, std::size_t columns, std::size_t most_weights);

}  // namespace routescope::analysis
