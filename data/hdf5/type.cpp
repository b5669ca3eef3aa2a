#include "data/hdf5/type.h"

#include <stdexcept>

namespace routescope::data::hdf5 {

namespace {

Handle copy_of(hid_t type) {
  return own(H5Tcopy(type), H5Tclose, "HDF5", "cannot copy a type");
}

Handle make_text_type() {
  Handle type = copy_of(H5T_C_S1);
  check(H5Tset_size(type.id(), H5T_VARIABLE), "HDF5", "cannot make the text type");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), "HDF5", "cannot make the text type");
  return type;
}

Handle make_half_type() {
  Handle type = copy_of(H5T_IEEE_F32LE);
  check(H5Tset_fields(type.id(), 15, 10, 5, 0, 10), "HDF5", "cannot make the binary16 type");
  check(H5Tset_size(type.id(), 2), "HDF5", "cannot make the binary16 type");
  check(H5Tset_ebias(type.id(), 15), "HDF5", "cannot make the binary16 type");
  return type;
}

}  // namespace

Handle file_type(Type type) {
  silence();
  switch (type) {
    case Type::f64:
      return copy_of(H5T_IEEE_F64LE);
    case Type::f32:
      return copy_of(H5T_IEEE_F32LE);
    case Type::f16:
      return make_half_type();
    case Type::i64:
      return copy_of(H5T_STD_I64LE);
    case Type::i32:
      return copy_of(H5T_STD_I32LE);
    case Type::u8:
      return copy_of(H5T_STD_U8LE);
    case Type::text:
      return make_text_type();
  }
  throw std::logic_error("unknown HDF5 element type");
}

Handle memory_type(Type type) {
  silence();
  switch (type) {
    case Type::f64:
      return copy_of(H5T_NATIVE_DOUBLE);
    case Type::f32:
      return copy_of(H5T_NATIVE_FLOAT);
    case Type::i64:
      return copy_of(H5T_NATIVE_INT64);
    case Type::i32:
      return copy_of(H5T_NATIVE_INT32);
    case Type::u8:
      return copy_of(H5T_NATIVE_UINT8);
    case Type::f16:
    case Type::text:
      return file_type(type);
  }
  throw std::logic_error("unknown HDF5 element type");
}

std::string to_text(Type type) {
  switch (type) {
    case Type::f64:
      return "float64";
    case Type::f32:
      return "float32";
    case Type::f16:
      return "float16";
    case Type::i64:
      return "int64";
    case Type::i32:
      return "int32";
    case Type::u8:
      return "uint8";
    case Type::text:
      return "string";
  }
  throw std::logic_error("unknown HDF5 element type");
}

Type element_type(const Handle& stored, const std::string& at) {
  silence();
  const H5T_class_t kind = H5Tget_class(stored.id());
  if (kind == H5T_STRING) return Type::text;
  for (const Type type : {Type::f64, Type::f32, Type::f16, Type::i64, Type::i32, Type::u8}) {
    if (H5Tequal(stored.id(), file_type(type).id()) > 0) return type;
  }
  throw Error("{}: has a type that is none of routescope's", at);
}

Handle make_space(const Shape& shape, bool growing) {
  silence();
  if (shape.empty()) return own(H5Screate(H5S_SCALAR), H5Sclose, "HDF5", "cannot make a scalar space");
  std::vector<hsize_t> extent(shape.begin(), shape.end());
  std::vector<hsize_t> most = extent;
  if (growing) {
    for (hsize_t& length : most)
      if (length == 0) length = H5S_UNLIMITED;
    most[0] = H5S_UNLIMITED;
  }
  return own(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), most.data()), H5Sclose, "HDF5",
             "cannot make a dataspace");
}

std::string to_text(const Shape& shape) {
  std::string out;
  for (const std::int64_t extent : shape) out += fmt::format("{}{}", out.empty() ? "" : ", ", extent);
  return fmt::format("[{}]", out);
}

Handle make_rows_space(Shape shape, std::int64_t count) {
  if (!shape.empty()) shape[0] = count;
  return make_space(shape, false);
}

void select_rows(const Handle& space, const Shape& shape, std::int64_t begin, std::int64_t count,
                 const std::string& at) {
  std::vector<hsize_t> start(shape.size(), 0), extent(shape.begin(), shape.end());
  start[0] = static_cast<hsize_t>(begin);
  extent[0] = static_cast<hsize_t>(count);
  check(H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr), at,
        "cannot select rows");
}

}  // namespace routescope::data::hdf5
