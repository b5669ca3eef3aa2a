// The tables of a reference page in data/formats/ as fields, and the differences between them and files.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "data/hdf5/file.h"
#include "data/records/record_field.h"
#include "tests/places.h"

namespace routescope::testing {

/// A dataset with all of its axes; its type by the name that a page uses.
struct PageField {
  std::string path, type;
  std::vector<std::string> axes;
  std::string units, description;
};

/// Every part of `text` that `pattern` matches: its first group.
inline std::vector<std::string> matches(const std::string& text, const char* pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> out;
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) out.push_back((*at)[1]);
  return out;
}

/// The cells of a line of a table. A bar within a cell is written "\|".
inline std::vector<std::string> cells_of(const std::string& line) {
  return matches(line.substr(1), R"( *((?:\\\||[^|])*?) *\|)");
}

/// The rows of every table `| path | type | shape | units | meaning |`. A row may hold several paths, of one shape or
/// with a shape for each.
inline std::vector<PageField> page_fields(const std::string& text) {
  std::vector<PageField> out;
  std::istringstream lines(text);
  bool within = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] != '|') {
      within = false;
      continue;
    }
    const std::vector<std::string> cells = cells_of(line);
    if (cells == std::vector<std::string>{"path", "type", "shape", "units", "meaning"}) within = true;
    if (!within || cells.size() != 5 || !cells[0].starts_with('`')) continue;
    const std::vector<std::string> paths = matches(cells[0], "`([^`]*)`"),
                                   shapes = matches(cells[2], R"(\[([^\]]*)\])");
    for (std::size_t i = 0; i < paths.size(); ++i) {
      PageField field{paths[i], cells[1], {}, cells[3], cells[4]};
      if (!shapes.empty()) field.axes = matches(shapes[std::min(i, shapes.size() - 1)], "([^,]+?)(?:, |$)");
      out.push_back(std::move(field));
    }
  }
  return out;
}

inline std::string read_page(const std::string& name) {
  std::ifstream in(source_dir() + "/data/formats/" + name);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Every dataset of a file. `names` are pairs of a pattern in paths and axes and the name that the page has for it.
inline std::vector<PageField> file_fields(const data::hdf5::Group& file,
                                          const std::vector<std::pair<std::string, std::string>>& names = {}) {
  std::vector<PageField> out;
  const auto on_page = [&](std::string name) {
    for (const auto& [pattern, general] : names) name = std::regex_replace(name, std::regex(pattern), general);
    return name;
  };
  data::hdf5::each_dataset(file, [&](const data::hdf5::Dataset& dataset) {
    const data::RecordField field = data::described_field(dataset);
    PageField found{on_page(field.path), data::hdf5::to_text(field.type), {}, field.units, field.description};
    for (const std::string& axis : field.axes) found.axes.push_back(on_page(axis));
    out.push_back(std::move(found));
  });
  return out;
}

/// The differences between a page and files, a line each. An axis without a name in a file may have any on the page;
/// the shape [...] of a page stands for any.
inline std::vector<std::string> differences(const std::vector<PageField>& page, const std::vector<PageField>& files) {
  std::vector<std::string> out;
  std::map<std::string, const PageField*> described;
  for (const PageField& field : page) {
    if (!described.emplace(field.path, &field).second) out.push_back(field.path + ": stands twice on the page");
    const bool written = std::ranges::any_of(files, [&](const PageField& one) { return one.path == field.path; });
    if (!written) out.push_back(field.path + ": on the page, in no file");
  }
  for (const PageField& field : files) {
    const auto found = described.find(field.path);
    if (found == described.end()) {
      out.push_back(field.path + ": in a file, not on the page");
      continue;
    }
    const PageField& said = *found->second;
    const auto same_axis = [](const std::string& a, const std::string& b) { return b.empty() || a == b; };
    const bool same_axes =
        said.axes == std::vector<std::string>{"..."} || std::ranges::equal(said.axes, field.axes, same_axis);
    if (said.type != field.type || !same_axes || said.units != field.units) {
      out.push_back(fmt::format("{}: the page says {} [{}] in '{}', the file {} [{}] in '{}'", field.path, said.type,
                                fmt::join(said.axes, ", "), said.units, field.type, fmt::join(field.axes, ", "),
                                field.units));
    }
    if (said.description.empty()) out.push_back(field.path + ": the page has no meaning");
    if (field.description.empty()) out.push_back(field.path + ": the file has no description");
  }
  return out;
}

}  // namespace routescope::testing
