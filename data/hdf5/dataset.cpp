#include "data/hdf5/dataset.h"

#include <algorithm>
#include <limits>

#include "data/hdf5/guard.h"

namespace routescope::data::hdf5 {

namespace {

std::int64_t product(const Shape& shape, std::size_t from, const std::string& at) {
  std::int64_t out = 1;
  for (std::size_t axis = from; axis < shape.size(); ++axis) out = multiplied(out, shape[axis], at);
  return out;
}

H5T_class_t class_of(hid_t dataset) {
  Handle type(H5Dget_type(dataset), H5Tclose);
  return H5Tget_class(type.id());
}

}  // namespace

Shape Dataset::shape() const {
  silence();
  Handle space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) fail(where(), "cannot read the shape");
  std::vector<hsize_t> extent(static_cast<std::size_t>(rank));
  if (rank > 0 && H5Sget_simple_extent_dims(space.id(), extent.data(), nullptr) < 0)
    fail(where(), "cannot read the shape");
  if (H5Sget_simple_extent_type(space.id()) == H5S_NULL) throw Error("{}: holds nothing, expected values", where());
  for (const hsize_t length : extent)
    if (length > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max()))
      throw Error("{}: its shape is too large", where());
  return Shape(extent.begin(), extent.end());
}

std::int64_t Dataset::size() const {
  return product(shape(), 0, where());
}

std::size_t Dataset::room_for(std::int64_t rows) const {
  silence();
  const Handle type = own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type");
  require_plain_type(type, where());
  const std::int64_t count = rows < 0 ? size() : multiplied(rows, row_size(), where());
  require_room(multiplied(count, static_cast<std::int64_t>(H5Tget_size(type.id())), where()), *file_, where());
  return static_cast<std::size_t>(count);
}

std::int64_t Dataset::rows() const {
  const Shape now = shape();
  return now.empty() ? 1 : now[0];
}

std::int64_t Dataset::row_size() const {
  return product(shape(), 1, where());
}

Type Dataset::type() const {
  silence();
  return element_type(own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type"), where());
}

std::string Dataset::type_name() const {
  silence();
  const Handle type = own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type");
  try {
    return to_text(element_type(type, where()));
  } catch (const Error&) {
    if (!is_integer() && !is_float()) return "another type";
    return fmt::format("{}{} of {} bytes", H5Tget_order(type.id()) == H5T_ORDER_BE ? "big-endian " : "",
                       is_integer() ? "integers" : "numbers", H5Tget_size(type.id()));
  }
}

bool Dataset::is_integer() const {
  return class_of(id()) == H5T_INTEGER;
}
bool Dataset::is_float() const {
  return class_of(id()) == H5T_FLOAT;
}
bool Dataset::is_text() const {
  return class_of(id()) == H5T_STRING;
}

void Dataset::read_raw(Type type, void* out, std::int64_t begin, std::int64_t count) const {
  silence();
  const bool integers = type == Type::i64 || type == Type::i32 || type == Type::u8;
  if (!is_integer() && (integers || !is_float()))
    throw Error("{}: holds {}, expected {}", where(),
                is_text()    ? "text"
                : is_float() ? "floating-point numbers"
                             : "neither numbers nor text",
                integers ? "integers" : "numbers");
  const Shape now = shape();
  const bool whole = begin < 0;
  if (!whole && (now.empty() || count < 0 || begin > now[0] || count > now[0] - begin))
    throw Error("{}: rows {} to {} asked for, shape is {}", where(), begin, begin + count, to_text(now));
  const std::int64_t total = whole ? product(now, 0, where()) : count * product(now, 1, where());
  if (total == 0) return;

  Handle file_space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
  if (!whole) select_rows(file_space, now, begin, count, where());
  const Handle memory_space = make_rows_space(now, whole && !now.empty() ? now[0] : count);
  const Handle stored = own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type");
  // HDF5 clips integers that do not fit; they are read wide and checked instead.
  if (type == Type::i64 && H5Tget_sign(stored.id()) == H5T_SGN_NONE &&
      H5Tget_size(stored.id()) == sizeof(std::int64_t)) {
    check(H5Dread(id(), H5T_NATIVE_UINT64, memory_space.id(), file_space.id(), H5P_DEFAULT, out), where(),
          "cannot read");
    for (std::int64_t i = 0; i < total; ++i)
      if (static_cast<std::int64_t*>(out)[i] < 0)
        throw Error("{}: element {} is {}, expected at most {}", where(), i, static_cast<std::uint64_t*>(out)[i],
                    std::numeric_limits<std::int64_t>::max());
    return;
  }
  if (type == Type::i32 || type == Type::u8) {
    std::vector<std::int64_t> wide(static_cast<std::size_t>(total));
    check(H5Dread(id(), H5T_NATIVE_INT64, memory_space.id(), file_space.id(), H5P_DEFAULT, wide.data()), where(),
          "cannot read");
    const std::int64_t least = type == Type::i32 ? std::numeric_limits<std::int32_t>::min() : 0;
    const std::int64_t most = type == Type::i32 ? std::numeric_limits<std::int32_t>::max() : 255;
    for (std::int64_t i = 0; i < total; ++i) {
      const std::int64_t value = wide[static_cast<std::size_t>(i)];
      if (value < least || value > most)
        throw Error("{}: element {} is {}, expected {} to {}", where(), i, value, least, most);
      if (type == Type::i32)
        static_cast<std::int32_t*>(out)[i] = static_cast<std::int32_t>(value);
      else
        static_cast<std::uint8_t*>(out)[i] = static_cast<std::uint8_t>(value);
    }
    return;
  }
  check(H5Dread(id(), memory_type(type).id(), memory_space.id(), file_space.id(), H5P_DEFAULT, out), where(),
        "cannot read");
}

std::vector<std::string> Dataset::read_text() const {
  silence();
  if (!is_text()) throw Error("{}: holds numbers, expected text", where());
  const Shape now = shape();
  if (now.size() > 1) throw Error("{}: found shape {}, expected one axis", where(), to_text(now));
  const std::size_t count = room_for(-1);
  std::vector<std::string> out;
  if (count == 0) return out;
  Handle type = own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type");
  if (H5Tis_variable_str(type.id()) <= 0) {
    const std::size_t width = H5Tget_size(type.id());
    std::string flat(count * width, '\0');
    check(H5Dread(id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, flat.data()), where(), "cannot read");
    for (std::size_t i = 0; i < count; ++i) {
      const std::string item = flat.substr(i * width, width);
      out.push_back(item.substr(0, item.find('\0')));
    }
    return out;
  }
  // Some at a time: many texts of a file may be one and the same, so that together they are longer than the file.
  constexpr std::int64_t at_once = 16;
  std::int64_t bytes = 0;
  const auto rows = static_cast<std::int64_t>(count);
  for (std::int64_t begin = 0; begin < rows; begin += at_once) {
    const std::int64_t some = std::min(at_once, rows - begin);
    Handle file_space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
    if (!now.empty()) select_rows(file_space, now, begin, some, where());
    const Handle memory_space = make_rows_space(now, some);
    std::vector<char*> pointers(static_cast<std::size_t>(some), nullptr);
    check(H5Dread(id(), type.id(), memory_space.id(), file_space.id(), H5P_DEFAULT, pointers.data()), where(),
          "cannot read");
    for (char* pointer : pointers) {
      out.emplace_back(pointer ? pointer : "");
      bytes += static_cast<std::int64_t>(out.back().size());
      H5free_memory(pointer);
    }
    require_room(bytes, *file_, where());
  }
  return out;
}

void Dataset::write_raw(Type type, const void* values, std::int64_t count, std::int64_t begin, bool whole) {
  silence();
  const Shape now = shape();
  const std::int64_t row = product(now, 1, where());
  const std::int64_t rows = whole || row == 0 ? (now.empty() ? 1 : now[0]) : count / row;
  if (count != rows * row || (!whole && (now.empty() || begin < 0 || begin + rows > now[0])))
    throw Error("{}: {} values from row {} on do not fit shape {}", where(), count, begin, to_text(now));
  if (count == 0) return;
  Handle file_space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
  if (!whole) select_rows(file_space, now, begin, rows, where());
  const Handle memory_space = make_rows_space(now, rows);
  check_write(H5Dwrite(id(), memory_type(type).id(), memory_space.id(), file_space.id(), H5P_DEFAULT, values), *file_,
              where(), "cannot write");
}

void Dataset::append_raw(Type type, const void* values, std::int64_t count, std::int64_t added) {
  const std::int64_t before = rows();
  if (count != added * row_size())
    throw Error("{}: {} values appended as {} rows of {}", where(), count, added, row_size());
  resize(before + added);
  if (count > 0) write_raw(type, values, count, before, false);
}

void Dataset::resize(std::int64_t rows) {
  silence();
  const Shape now = shape();
  std::vector<hsize_t> extent(now.begin(), now.end());
  if (extent.empty()) throw Error("{}: a scalar has no rows", where());
  extent[0] = static_cast<hsize_t>(rows);
  check_write(H5Dset_extent(id(), extent.data()), *file_, where(), "cannot change the number of rows");
}

void Dataset::flush() {
  silence();
  check_write(H5Dflush(id()), *file_, where(), "cannot write");
}

void Dataset::refresh() {
  silence();
  check(H5Drefresh(id()), where(), "cannot refresh");
}

}  // namespace routescope::data::hdf5
