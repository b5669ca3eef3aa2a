#include "data/hdf5/object.h"

#include "data/hdf5/guard.h"

namespace routescope::data::hdf5 {

namespace {

// How many values an attribute holds, which the file has room for.
std::size_t count_of(const Handle& attribute, const FileState& file, const std::string& at) {
  Handle space = own(H5Aget_space(attribute.id()), H5Sclose, at, "cannot read the attribute");
  Handle type = own(H5Aget_type(attribute.id()), H5Tclose, at, "cannot read the attribute's type");
  const std::int64_t count = H5Sget_simple_extent_npoints(space.id());
  if (count < 0) fail(at, "cannot read the attribute");
  require_room(multiplied(count, static_cast<std::int64_t>(H5Tget_size(type.id())), at), file, at);
  return static_cast<std::size_t>(count);
}

Handle replace_attribute(hid_t object, const std::string& name, const Handle& type, const Handle& space,
                         const std::shared_ptr<FileState>& file, const std::string& at) {
  if (H5Aexists(object, name.c_str()) > 0)
    check_write(H5Adelete(object, name.c_str()), *file, at, "cannot replace the attribute");
  const hid_t made = H5Acreate2(object, name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT);
  if (made < 0) fail_writing(*file, at, "cannot create the attribute");
  return Handle(made, H5Aclose, file);
}

template <class T>
std::vector<T> read_values(const Handle& attribute, Type type, const FileState& file, const std::string& at) {
  std::vector<T> out(count_of(attribute, file, at));
  if (!out.empty()) check(H5Aread(attribute.id(), memory_type(type).id(), out.data()), at, "cannot read the attribute");
  return out;
}

}  // namespace

void Object::set(const std::string& name, const std::string& text) {
  const std::string at = where() + "@" + name;
  Handle type = file_type(Type::text);
  Handle space = make_space({}, false);
  Handle attribute = replace_attribute(id(), name, type, space, file_, at);
  const char* pointer = text.c_str();
  check_write(H5Awrite(attribute.id(), type.id(), &pointer), *file_, at, "cannot write the attribute");
}

void Object::set_raw(const std::string& name, Type type, const void* values, std::int64_t count) {
  const std::string at = where() + "@" + name;
  Handle stored = file_type(type);
  Handle space = make_space(count < 0 ? Shape{} : Shape{count}, false);
  Handle attribute = replace_attribute(id(), name, stored, space, file_, at);
  if (count != 0)
    check_write(H5Awrite(attribute.id(), memory_type(type).id(), values), *file_, at, "cannot write the attribute");
}

void Object::set(const std::string& name, const std::vector<std::int64_t>& values) {
  set_raw(name, Type::i64, values.data(), static_cast<std::int64_t>(values.size()));
}

void Object::set(const std::string& name, const std::vector<double>& values) {
  set_raw(name, Type::f64, values.data(), static_cast<std::int64_t>(values.size()));
}

bool Object::has(const std::string& attribute) const {
  silence();
  return H5Aexists(id(), attribute.c_str()) > 0;
}

Handle Object::open_attribute(const std::string& name, H5T_class_t accepted, H5T_class_t also) const {
  const std::string at = where() + "@" + name;
  if (!has(name)) throw Error("{}: no attribute \"{}\"", where(), name);
  Handle attribute = own(H5Aopen(id(), name.c_str(), H5P_DEFAULT), H5Aclose, at, "cannot open the attribute");
  Handle type = own(H5Aget_type(attribute.id()), H5Tclose, at, "cannot read the attribute's type");
  const H5T_class_t found = H5Tget_class(type.id());
  if (found != accepted && found != also)
    throw Error("{}: the attribute is {}, expected {}", at, found == H5T_STRING ? "text" : "not of the kind",
                accepted == H5T_STRING ? "text" : (also == H5T_FLOAT ? "numbers" : "integers"));
  require_plain_type(type, at);
  return attribute;
}

std::string Object::text(const std::string& name) const {
  const std::string at = where() + "@" + name;
  Handle attribute = open_attribute(name, H5T_STRING, H5T_STRING);
  if (count_of(attribute, *file_, at) != 1) throw Error("{}: expected one string", at);
  Handle type = own(H5Aget_type(attribute.id()), H5Tclose, at, "cannot read the attribute's type");
  if (H5Tis_variable_str(type.id()) > 0) {
    char* text = nullptr;
    // Read as the file has it: HDF5 does not convert between ASCII and UTF-8.
    check(H5Aread(attribute.id(), type.id(), &text), at, "cannot read the attribute");
    const std::string out = text ? text : "";
    H5free_memory(text);
    return out;
  }
  std::string out(H5Tget_size(type.id()), '\0');
  check(H5Aread(attribute.id(), type.id(), out.data()), at, "cannot read the attribute");
  return out.substr(0, out.find('\0'));
}

std::vector<std::int64_t> Object::integers(const std::string& name) const {
  return read_values<std::int64_t>(open_attribute(name, H5T_INTEGER, H5T_INTEGER), Type::i64, *file_,
                                   where() + "@" + name);
}

std::vector<double> Object::numbers(const std::string& name) const {
  return read_values<double>(open_attribute(name, H5T_INTEGER, H5T_FLOAT), Type::f64, *file_, where() + "@" + name);
}

std::int64_t Object::integer(const std::string& name) const {
  const auto values = integers(name);
  if (values.size() != 1) throw Error("{}@{}: {} values, expected one", where(), name, values.size());
  return values[0];
}

double Object::number(const std::string& name) const {
  const auto values = numbers(name);
  if (values.size() != 1) throw Error("{}@{}: {} values, expected one", where(), name, values.size());
  return values[0];
}

std::vector<std::string> Object::attribute_names() const {
  silence();
  std::vector<std::string> out;
  const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  check(H5Aiterate2(id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &out), where(), "cannot list the attributes");
  return out;
}

}  // namespace routescope::data::hdf5
