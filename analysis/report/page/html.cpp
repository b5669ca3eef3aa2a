#include "analysis/report/page/html.h"

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

}  // namespace

std::string study_page(const nlohmann::json& data) {
  std::string page(page_template);
  // The data last: its text must not be searched for the other places.
  replace(page, "@STYLE@", page_style);
  replace(page, "@SCRIPTS@", page_scripts);
  replace(page, "@DATA@", escaped(data));
  return page;
}

}  // namespace routescope::analysis
