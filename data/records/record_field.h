// The schema of a record. A RecordField describes one dataset: its path, type, axes, units and description. A RowField
// adds the member of a row that the dataset holds. Files are made, written, read, resumed and copied from these
// descriptions, and tests hold the pages in data/formats/ to them.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/hdf5/group.h"

namespace routescope::data {

struct RecordField {
  std::string path;                    // in the file, or in the group that the field belongs to
  std::vector<std::string> axes = {};  // without the axis of rows, where the dataset has one
  std::string units = {};              // "1" for a pure number, "" for text
  std::string description = {};        // one sentence
  hdf5::Type type = hdf5::Type::f64;
};

/// Lengths of axes by name.
using AxisLengths = std::map<std::string, std::int64_t>;

/// A dataset that has a row for each row in memory. Values are of the axes after the row's, the last one fastest.
template <class Row>
struct RowField : RecordField {
  using Values = std::vector<double>;
  RowField() = default;
  RowField(RecordField field, std::function<Values(const Row&)> getter, std::function<void(Row&, Values)> setter = {})
      : RecordField(std::move(field)), get(std::move(getter)), set(std::move(setter)) {}

  /// Empty: the row has none; the file then holds missing_value(type).
  std::function<Values(const Row&)> get;
  std::function<void(Row&, Values)> set;
  bool padded = false;  // get() may return fewer values than the axes hold; the others are missing
};

/// The whole number that a file's value is. Throws Error naming the path where it is none, or does not fit.
template <std::integral T>
T whole_number(double value, const std::string& path) {
  // Beyond 2^53 doubles are not exact; the next one after the largest T may be out of its range.
  if (value >= static_cast<double>(std::numeric_limits<T>::min()) &&
      value < std::ldexp(1.0, std::numeric_limits<T>::digits) && std::trunc(value) == value)
    return static_cast<T>(value);
  throw Error("{}: found {}, expected a whole number", path, value);
}

/// What stands in a file where nothing was recorded: NaN; -1 for integers, 0 for bytes.
double missing_value(hdf5::Type type);

/// The field's layout in a file, with the axes `leading` before its own.
hdf5::Layout layout_of(const RecordField& field, const std::vector<std::string>& leading = {});
hdf5::Shape shape_of(const RecordField& field, const AxisLengths& lengths);
/// Number of values in a row.
std::int64_t row_size(const RecordField& field, const AxisLengths& lengths);

/// The dataset has the field's type, class, width and byte order, and this shape. Throws Error naming what was found.
void expect_field(const hdf5::Dataset& data, const RecordField& field, const hdf5::Shape& shape);
/// The dataset of the field in a file, which has this shape.
hdf5::Dataset checked_dataset(const hdf5::Group& group, const RecordField& field, const hdf5::Shape& shape);

/// Numbers as a file holds them, and back. Every float and every integer up to 2^53 is kept exactly.
std::vector<std::byte> to_bytes(hdf5::Type type, std::span<const double> values);
std::vector<double> from_bytes(hdf5::Type type, std::span<const std::byte> bytes);

/// A new dataset that holds `values`, converted to the field's type.
hdf5::Dataset write_field(hdf5::Group& group, const RecordField& field, std::span<const double> values,
                          const hdf5::Shape& shape, const hdf5::Layout& layout);

/// New datasets of `group`, each with its field of all rows. `row_axis` names the axis of rows; empty: there is one row
/// and no such axis.
template <class Row>
void write_fields(hdf5::Group& group, const std::vector<RowField<Row>>& fields, std::span<const Row> rows,
                  const AxisLengths& lengths, const std::string& row_axis = "") {
  for (const RowField<Row>& field : fields) {
    hdf5::Shape shape = shape_of(field, lengths);
    if (!row_axis.empty()) shape.insert(shape.begin(), std::ssize(rows));
    std::vector<double> values;
    for (const Row& row : rows) {
      const std::vector<double> own = field.get(row);
      values.insert(values.end(), own.begin(), own.end());
    }
    write_field(group, field, values, shape,
                layout_of(field, row_axis.empty() ? std::vector<std::string>{} : std::vector{row_axis}));
  }
}

/// A dataset as its file describes it, with all of its axes; an axis without a name is "". Throws Error for a type that
/// this project does not write.
RecordField described_field(const hdf5::Dataset& data);

// ---- fields of members ----------------------------------------------------------------------------------------------

template <class Member>
struct MemberElement {
  using type = Member;
};
template <class Value>
struct MemberElement<std::vector<Value>> {
  using type = Value;
};

/// The field of a number or a vector of numbers. `at(row)` returns a pointer to it: of a const row to a const one; null
/// where the row has none.
template <class Row, class At>
RowField<Row> field_at(std::string path, std::vector<std::string> axes, std::string units, std::string description,
                       const At& at) {
  using Member = std::remove_cvref_t<decltype(*at(std::declval<const Row&>()))>;
  using Element = typename MemberElement<Member>::type;
  constexpr bool single = std::is_same_v<Member, Element>;
  RecordField field{std::move(path), std::move(axes), std::move(units), std::move(description),
                    hdf5::type_of<Element>()};
  const auto get = [at](const Row& row) -> std::vector<double> {
    const auto* member = at(row);
    if (!member) return {};
    if constexpr (single)
      return {static_cast<double>(*member)};
    else
      return {member->begin(), member->end()};
  };
  const auto set = [at, path = field.path](Row& row, const std::vector<double>& values) {
    const auto element = [&path](double value) {
      if constexpr (std::is_integral_v<Element>)
        return whole_number<Element>(value, path);
      else
        return static_cast<Element>(value);
    };
    if constexpr (single) {
      *at(row) = element(values.front());
    } else {
      at(row)->clear();
      std::transform(values.begin(), values.end(), std::back_inserter(*at(row)), element);
    }
  };
  return {std::move(field), get, set};
}

/// The field of a member of the row itself: field_of("/train/loss", {}, "nat/token", "...", &TrainRow::loss).
template <class Row, class Member>
RowField<Row> field_of(std::string path, std::vector<std::string> axes, std::string units, std::string description,
                       Member Row::*member) {
  return field_at<Row>(std::move(path), std::move(axes), std::move(units), std::move(description),
                       [member](auto& row) { return &(row.*member); });
}

}  // namespace routescope::data
