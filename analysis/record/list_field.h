// Fields of analysis.h5 over a list that a row holds: its sets, or the routes of its atlas.
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "analysis/record/record_fields.h"

namespace routescope::analysis {

/// A dataset over a list of the row, `width` values for each of its items: list(row) is the address of the list (null:
/// the row has none), get(item) returns the values of an item, put(item, values) sets them. With `padded` a list that
/// is read ends before its first negative or NaN value.
template <class List, class Get, class Put>
ProbeField list_field(const std::string& path, std::vector<std::string> axes, const std::string& units,
                      const std::string& description, std::size_t width, bool padded, const List& list, const Get& get,
                      const Put& put) {
  const auto get_all = [=](const ProbeRow& row) {
    std::vector<double> out;
    const auto* items = list(row);
    for (std::size_t i = 0; items && i < items->size(); ++i) {
      const std::vector<double> values = get((*items)[i]);
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  };
  const auto set_all = [=](ProbeRow& row, const std::vector<double>& values) {
    auto& items = *list(row);
    for (std::size_t i = 0; i < values.size() / width; ++i) {
      const double* first = values.data() + i * width;
      if (i == items.size()) {
        if (padded && !(*first >= 0)) break;
        items.emplace_back();
      }
      put(items[i], std::vector<double>(first, first + width));
    }
  };
  ProbeField field({path, std::move(axes), units, description}, get_all, set_all);
  field.padded = padded;
  return field;
}

/// A number of each item; at(item): its address.
template <class List, class At>
ProbeField list_number(const std::string& path, std::vector<std::string> axes, const std::string& units,
                       const std::string& description, bool padded, const List& list, const At& at) {
  return list_field(
      path, std::move(axes), units, description, 1, padded, list,
      [at](const auto& item) { return std::vector<double>{static_cast<double>(*at(item))}; },
      [at, path](auto& item, const std::vector<double>& values) {
        using Member = std::remove_reference_t<decltype(*at(item))>;
        if constexpr (std::is_enum_v<Member>)
          *at(item) = static_cast<Member>(data::whole_number<std::underlying_type_t<Member>>(values.front(), path));
        else if constexpr (std::is_integral_v<Member>)
          *at(item) = data::whole_number<Member>(values.front(), path);
        else
          *at(item) = static_cast<Member>(values.front());
      });
}

/// The interval of an estimate of each item; at(item): the estimate's address.
template <class List, class At>
ProbeField list_interval(const std::string& path, std::vector<std::string> axes, const std::string& units,
                         const std::string& description, bool padded, const List& list, const At& at) {
  axes.emplace_back("bound");
  return list_field(
      path, std::move(axes), units, description, 2, padded, list,
      [at](const auto& item) {
        return std::vector<double>{at(item)->ci.lower, at(item)->ci.upper};
      },
      [at](auto& item, const std::vector<double>& values) {
        at(item)->ci = {values[0], values[1]};
      });
}

}  // namespace routescope::analysis
