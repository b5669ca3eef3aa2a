#include "data/records/record_field.h"

#include <hdf5_hl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "data/hdf5/guard.h"

namespace routescope::data {

namespace {

/// Calls `body` with a value of the C++ type that holds `type` in memory.
template <class Body>
auto with_type(hdf5::Type type, const Body& body) {
  switch (type) {
    case hdf5::Type::f64:
      return body(double{});
    case hdf5::Type::f32:
      return body(float{});
    case hdf5::Type::i64:
      return body(std::int64_t{});
    case hdf5::Type::i32:
      return body(std::int32_t{});
    case hdf5::Type::u8:
      return body(std::uint8_t{});
    case hdf5::Type::f16:
    case hdf5::Type::text:
      break;
  }
  throw std::invalid_argument("a field of type " + hdf5::to_text(type) + " has no values in rows");
}

template <class T>
T stored_value(double value) {
  if constexpr (std::is_integral_v<T>)
    return whole_number<T>(value, "a value of a record");
  else
    return static_cast<T>(value);
}

std::string axis_label(const hdf5::Dataset& data, std::size_t axis) {
  std::array<char, 64> label{};
  const auto length = H5DSget_label(data.id(), static_cast<unsigned>(axis), label.data(), label.size());
  return length > 0 ? label.data() : "";
}

}  // namespace

double missing_value(hdf5::Type type) {
  if (type == hdf5::Type::u8) return 0;
  return type == hdf5::Type::i32 || type == hdf5::Type::i64 ? -1 : std::numeric_limits<double>::quiet_NaN();
}

hdf5::Layout layout_of(const RecordField& field, const std::vector<std::string>& leading) {
  hdf5::Layout out{.units = field.units, .description = field.description, .axes = leading};
  out.axes.insert(out.axes.end(), field.axes.begin(), field.axes.end());
  return out;
}

hdf5::Shape shape_of(const RecordField& field, const AxisLengths& lengths) {
  hdf5::Shape out;
  for (const std::string& axis : field.axes) out.push_back(lengths.at(axis));
  return out;
}

std::int64_t row_size(const RecordField& field, const AxisLengths& lengths) {
  std::int64_t out = 1;
  for (const std::string& axis : field.axes) out = hdf5::multiplied(out, lengths.at(axis), field.path);
  return out;
}

void expect_field(const hdf5::Dataset& data, const RecordField& field, const hdf5::Shape& shape) {
  const std::string found = data.type_name();
  if (found == hdf5::to_text(field.type) && data.shape() == shape) return;
  throw Error("{}: found {} {}, expected {} {}", data.where(), found, hdf5::to_text(data.shape()),
              hdf5::to_text(field.type), hdf5::to_text(shape));
}

hdf5::Dataset checked_dataset(const hdf5::Group& group, const RecordField& field, const hdf5::Shape& shape) {
  hdf5::Dataset data = group.dataset(field.path);
  expect_field(data, field, shape);
  return data;
}

std::vector<std::byte> to_bytes(hdf5::Type type, std::span<const double> values) {
  return with_type(type, [&](auto example) {
    std::vector<std::byte> out(values.size() * sizeof example);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto stored = stored_value<decltype(example)>(values[i]);
      std::memcpy(out.data() + i * sizeof stored, &stored, sizeof stored);
    }
    return out;
  });
}

std::vector<double> from_bytes(hdf5::Type type, std::span<const std::byte> bytes) {
  return with_type(type, [&](auto stored) {
    std::vector<double> out(bytes.size() / sizeof stored);
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&stored, bytes.data() + i * sizeof stored, sizeof stored);
      out[i] = static_cast<double>(stored);
    }
    return out;
  });
}

hdf5::Dataset write_field(hdf5::Group& group, const RecordField& field, std::span<const double> values,
                          const hdf5::Shape& shape, const hdf5::Layout& layout) {
  return with_type(field.type, [&](auto example) {
    std::vector<decltype(example)> stored(values.size());
    std::transform(values.begin(), values.end(), stored.begin(), stored_value<decltype(example)>);
    return group.write(field.path, stored, shape, layout);
  });
}

RecordField described_field(const hdf5::Dataset& data) {
  RecordField field{.path = data.path(), .type = data.type()};
  if (data.has("units")) field.units = data.text("units");
  if (data.has("description")) field.description = data.text("description");
  const bool scale = H5DSis_scale(data.id()) > 0;
  const std::string name = field.path.substr(field.path.rfind('/') + 1);
  for (std::size_t axis = 0; axis < data.shape().size(); ++axis)
    field.axes.push_back(scale ? name : axis_label(data, axis));
  return field;
}

}  // namespace routescope::data
