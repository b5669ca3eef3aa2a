// Datasets: their shape, their values, and rows that are added to them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/object.h"
#include "data/hdf5/type.h"

namespace routescope::data::hdf5 {

class Dataset : public Object {
 public:
  Dataset() = default;
  Shape shape() const;
  std::int64_t size() const;      // elements
  std::int64_t rows() const;      // length of the first axis
  std::int64_t row_size() const;  // elements of a row
  Type type() const;              // throws Error for one that this project does not write
  /// The same as text; of any other type, something like "integers of 2 bytes".
  std::string type_name() const;
  bool is_integer() const;
  bool is_float() const;
  bool is_text() const;

  /// The whole dataset, converted. Throws Error for text, for floating-point numbers read as integers, for an integer
  /// that does not fit, and for more values than the file can hold.
  template <Element T>
  std::vector<T> read() const {
    std::vector<T> out(room_for(-1));
    read_raw(type_of<T>(), out.data(), -1, 0);
    return out;
  }
  /// Rows [begin, begin + count) of the first axis.
  template <Element T>
  std::vector<T> read_rows(std::int64_t begin, std::int64_t count) const {
    std::vector<T> out(room_for(count));
    read_raw(type_of<T>(), out.data(), begin, count);
    return out;
  }
  std::vector<std::string> read_text() const;
  /// The number of values in `rows` rows (-1: in all). Throws Error if the file cannot hold them, or if they are
  /// neither numbers nor text.
  std::size_t room_for(std::int64_t rows) const;

  /// Overwrites the rows from `begin` on; values.size() must be whole rows that exist.
  template <Element T>
  void write_rows(std::int64_t begin, std::span<const T> values) {
    write_raw(type_of<T>(), values.data(), static_cast<std::int64_t>(values.size()), begin, false);
  }
  /// Adds `rows` rows at the end of a growing dataset. values.size() must be that many rows.
  template <Element T>
  void append(std::span<const T> values, std::int64_t rows = 1) {
    append_raw(type_of<T>(), values.data(), static_cast<std::int64_t>(values.size()), rows);
  }
  /// A new length of the first axis of a growing dataset.
  void resize(std::int64_t rows);

  /// For a writer: hands everything of this dataset to the operating system.
  void flush();
  /// For a reader (SWMR): shows what the writer has added.
  void refresh();

 private:
  friend class Group;
  using Object::Object;
  void read_raw(Type type, void* out, std::int64_t begin, std::int64_t count) const;
  void write_raw(Type type, const void* values, std::int64_t count, std::int64_t begin, bool whole);
  void append_raw(Type type, const void* values, std::int64_t count, std::int64_t rows);
};

}  // namespace routescope::data::hdf5
