// Groups and datasets have attributes: the class that both derive from.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/hdf5/handle.h"
#include "data/hdf5/type.h"

namespace routescope::data::hdf5 {

class Object {
 public:
  /// Set a new attribute or replace one.
  void set(const std::string& name, const std::string& text);
  void set(const std::string& name, const char* text) { set(name, std::string(text)); }
  template <std::integral T>
  void set(const std::string& name, T value) {
    const std::int64_t wide = value;
    set_raw(name, Type::i64, &wide, -1);
  }
  void set(const std::string& name, double value) { set_raw(name, Type::f64, &value, -1); }
  void set(const std::string& name, const std::vector<std::int64_t>& values);
  void set(const std::string& name, const std::vector<double>& values);

  bool has(const std::string& attribute) const;
  /// Throw Error if the attribute is absent or of another kind.
  std::string text(const std::string& attribute) const;
  std::int64_t integer(const std::string& attribute) const;
  double number(const std::string& attribute) const;
  std::vector<std::int64_t> integers(const std::string& attribute) const;
  std::vector<double> numbers(const std::string& attribute) const;
  std::vector<std::string> attribute_names() const;

  /// "FILE: /path", the beginning of every error about this object.
  std::string where() const { return file_->name + ": " + path_; }
  const std::string& path() const { return path_; }
  /// For calls to the C API that this room does not cover.
  hid_t id() const { return handle_.id(); }
  FileState& file_state() const { return *file_; }

 protected:
  Object() = default;
  Object(Handle handle, std::shared_ptr<FileState> file, std::string path)
      : handle_(std::move(handle)), file_(std::move(file)), path_(std::move(path)) {}

  Handle handle_;
  std::shared_ptr<FileState> file_;
  std::string path_;

 private:
  void set_raw(const std::string& name, Type type, const void* values, std::int64_t count);  // count -1: a scalar
  Handle open_attribute(const std::string& name, H5T_class_t accepted, H5T_class_t also) const;
};

}  // namespace routescope::data::hdf5
