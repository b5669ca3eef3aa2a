#include "analysis/report/page/text_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace routescope::analysis {

using nlohmann::json;

namespace {

std::string base64(const std::vector<unsigned char>& bytes) {
  static constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t there = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 3; ++i) word = (word << 8U) | (i < there ? bytes[at + i] : 0U);
    for (std::size_t i = 0; i < 4; ++i) out += i <= there ? digits[(word >> (18 - 6 * i)) & 63U] : '=';
  }
  return out;
}

}  // namespace

json text_data(const RoutedText& text, std::size_t reads, std::size_t columns, std::size_t most_weights) {
  const std::size_t cells = std::max<std::size_t>(1, reads * columns);
  const auto positions = static_cast<std::size_t>(text.positions), all = static_cast<std::size_t>(text.sequences);
  // Some sequences rather than one whole, but not less of each than a paragraph.
  constexpr std::size_t paragraph = 256, most_sequences = 6;
  const std::size_t sequences = std::clamp<std::size_t>(most_weights / (cells * std::min(positions, paragraph)), 1,
                                                        std::min(all, most_sequences));
  const std::size_t shown = std::min(positions, std::max<std::size_t>(1, most_weights / (cells * sequences)));
  json tokens = json::array();
  std::vector<unsigned char> weights;
  weights.reserve(sequences * reads * shown * columns);
  for (std::size_t s = 0; s < sequences; ++s) {
    json words = json::array();
    for (std::size_t p = 0; p < shown; ++p) words.push_back(text.tokens[s * positions + p]);
    tokens.push_back(std::move(words));
    for (std::size_t r = 0; r < reads; ++r) {
      for (std::size_t p = 0; p < shown; ++p) {
        for (std::size_t c = 0; c < columns; ++c) {
          const float alpha = text.alpha[((r * all + s) * positions + p) * columns + c];
          weights.push_back(
              std::isnan(alpha) ? 255 : static_cast<unsigned char>(std::lround(254 * std::clamp(alpha, 0.0F, 1.0F))));
        }
      }
    }
  }
  return {{"step", text.step},           {"origin", text.origin},     {"sequences", sequences},
          {"of_sequences", all},         {"positions", shown},        {"of_positions", positions},
          {"tokens", std::move(tokens)}, {"weights", base64(weights)}};
}

}  // namespace routescope::analysis
