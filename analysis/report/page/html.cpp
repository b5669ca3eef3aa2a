#include "analysis/report/page/html.h"

#include <openssl/evp.h>

#include <array>
#include <stdexcept>
#include <string_view>

#include "analysis/report/page/web.h"

namespace routescope::analysis {
namespace {

void replace(std::string& text, std::string_view place, std::string_view by) {
  const std::size_t at = text.find(place);
  if (at == std::string::npos) throw std::logic_error("the page's template lacks " + std::string(place));
  text.replace(at, place.size(), by);
}

/// JSON for a script element, which only "<" could end: JSON may write it otherwise.
std::string escaped(const nlohmann::json& data) {
  std::string out;
  for (char c : data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

/// A policy under which the page loads nothing from elsewhere and runs no script but `script`, whatever its data hold
/// (W3C, "Content Security Policy Level 3").
std::string policy_for(std::string_view script) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_Digest(script.data(), script.size(), digest.data(), &size, EVP_sha256(), nullptr);
  std::array<unsigned char, 2 * EVP_MAX_MD_SIZE> base64{};
  const int length = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(size));
  const std::string hash(base64.begin(), base64.begin() + length);
  return "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" + hash +
         "'; base-uri 'none'; form-action 'none'";
}

}  // namespace

std::string study_page(const nlohmann::json& data) {
  std::string page(page_template);
  // The data last: its text must not be searched for the other places.
  replace(page, "@STYLE@", page_style);
  const std::string script = "\n" + std::string(page_scripts) + "\n";
  replace(page, "@POLICY@", policy_for(script));
  replace(page, "@SCRIPTS@", script);
  replace(page, "@DATA@", escaped(data));
  return page;
}

}  // namespace routescope::analysis
