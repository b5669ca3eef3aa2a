// Element types and shapes, and what HDF5 calls them: datatypes and dataspaces.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <vector>

#include "data/hdf5/half.h"
#include "data/hdf5/handle.h"

namespace routescope::data::hdf5 {

using Shape = std::vector<std::int64_t>;
/// "[3, 17]".
std::string to_text(const Shape& shape);

/// Element types as stored. f16 is IEEE binary16, text a variable-length UTF-8 string.
enum class Type { f64, f32, f16, i64, i32, u8, text };
/// As the reference pages call it: "float64", ..., "string".
std::string to_text(Type type);

template <class T>
concept Element = std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, half> ||
    std::same_as<T, std::int64_t> || std::same_as<T, std::int32_t> || std::same_as<T, std::uint8_t>;

template <Element T>
constexpr Type type_of() {
  if constexpr (std::same_as<T, double>) return Type::f64;
  if constexpr (std::same_as<T, float>) return Type::f32;
  if constexpr (std::same_as<T, half>) return Type::f16;
  if constexpr (std::same_as<T, std::int64_t>) return Type::i64;
  if constexpr (std::same_as<T, std::int32_t>) return Type::i32;
  return Type::u8;
}

/// The datatype in a file (little-endian) or in memory.
Handle file_type(Type type);
Handle memory_type(Type type);
/// The element type of a stored datatype. Throws Error for one that this project does not write.
Type element_type(const Handle& stored, const std::string& at);

/// A dataspace; empty shape: a scalar. A growing one is unlimited along its first axis, and along axes of length 0,
/// which chunked storage could not have otherwise.
Handle make_space(const Shape& shape, bool growing);
/// The space of `count` rows of a dataset of that shape in memory. It has the rank of the space in the file: HDF5 then
/// copies runs of elements, otherwise single elements.
Handle make_rows_space(Shape shape, std::int64_t count);
/// Selects rows [begin, begin + count) of a file space of that shape.
void select_rows(const Handle& space, const Shape& shape, std::int64_t begin, std::int64_t count,
                 const std::string& at);

}  // namespace routescope::data::hdf5
