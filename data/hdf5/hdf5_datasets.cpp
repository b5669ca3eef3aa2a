// Datasets: creation with scales and chunks, reading, writing, growing.
#include <hdf5_hl.h>

#include <algorithm>
#include <limits>

#include "data/hdf5/hdf5_internal.h"

namespace routescope::data::hdf5 {

namespace {

// About 64 KiB: small enough that a row appended to a growing dataset rewrites little, large enough for disks.
constexpr std::int64_t chunk_bytes = 64 * 1024;

// Chunks that span whole rows where they fit; of long rows, as much of the trailing axes as fits into 16 times the
// target.
std::vector<hsize_t> chosen_chunk(const Shape& shape, bool growing, std::size_t element_bytes) {
  std::vector<hsize_t> chunk(shape.size(), 1);
  std::int64_t bytes = static_cast<std::int64_t>(element_bytes);
  for (std::size_t axis = shape.size(); axis-- > 1;) {
    const std::int64_t extent = std::max<std::int64_t>(shape[axis], 1);
    chunk[axis] = static_cast<hsize_t>(std::clamp<std::int64_t>(16 * chunk_bytes / bytes, 1, extent));
    bytes *= static_cast<std::int64_t>(chunk[axis]);
  }
  const std::int64_t rows = std::clamp<std::int64_t>(chunk_bytes / bytes, 1, 1024);
  chunk[0] = static_cast<hsize_t>(growing ? rows : std::min(rows, std::max<std::int64_t>(shape[0], 1)));
  return chunk;
}

std::int64_t product(const Shape& shape, std::size_t from) {
  std::int64_t out = 1;
  for (std::size_t axis = from; axis < shape.size(); ++axis) out *= shape[axis];
  return out;
}

H5T_class_t class_of(hid_t dataset) {
  Handle type(H5Dget_type(dataset), H5Tclose);
  return H5Tget_class(type.id());
}

}  // namespace

// Rows [begin, begin + count) of a file space.
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

// ---- creation -------------------------------------------------------------------------------------------------------

Dataset Group::create_raw(const std::string& path, Type type, const Shape& shape, bool growing, const Layout& layout) {
  silence();
  const std::string full = absolute(path);
  const std::string at = file_->name + ": " + full;
  if (exists(full)) throw Error("{}: exists already", at);
  Handle links = own(H5Pcreate(H5P_LINK_CREATE), H5Pclose, at, "cannot make a property list");
  check(H5Pset_create_intermediate_group(links.id(), 1), at, "cannot set a property");
  Handle creation = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, at, "cannot make a property list");
  const Handle stored = file_type(type);
  const bool empty = !growing && product(shape, 0) == 0;
  if (growing || (!shape.empty() && !empty && (layout.deflate > 0 || !layout.chunk.empty()))) {
    std::vector<hsize_t> chunk(layout.chunk.begin(), layout.chunk.end());
    if (chunk.empty()) chunk = chosen_chunk(shape, growing, H5Tget_size(stored.id()));
    check(H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()), at, "cannot set the chunk shape");
    if (layout.deflate > 0) {
      check(H5Pset_shuffle(creation.id()), at, "cannot set the shuffle filter");
      check(H5Pset_deflate(creation.id(), static_cast<unsigned>(layout.deflate)), at, "cannot set the deflate filter");
    }
  }
  const Handle space = make_space(shape, growing);
  const hid_t made = H5Dcreate2(id(), full.c_str(), stored.id(), space.id(), links.id(), creation.id(), H5P_DEFAULT);
  if (made < 0) fail_writing(*file_, at, "cannot create the dataset");
  Dataset out(Handle(made, H5Dclose, file_), file_, full);
  describe(out, full, layout);
  return out;
}

Dataset Group::create(const std::string& path, Type type, const Shape& shape, const Layout& layout) {
  return create_raw(path, type, shape, false, layout);
}

Dataset Group::create_growing(const std::string& path, Type type, const Shape& row, const Layout& layout) {
  Shape shape{0};
  shape.insert(shape.end(), row.begin(), row.end());
  return create_raw(path, type, shape, true, layout);
}

void Group::describe(Dataset& data, const std::string& path, const Layout& layout) {
  if (!layout.units.empty()) data.set("units", layout.units);
  if (!layout.description.empty()) data.set("description", layout.description);
  if (layout.axes.empty()) return;
  const Shape shape = data.shape();
  if (layout.axes.size() != shape.size())
    throw Error("{}: {} axis names for shape {}", data.where(), layout.axes.size(), to_text(shape));
  const std::string name = path.substr(path.rfind('/') + 1);
  if (layout.axes.size() == 1 && layout.axes[0] == name) {
    check_write(H5DSset_scale(data.id(), name.c_str()), *file_, data.where(), "cannot make it a dimension scale");
    return;
  }
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    // The nearest one: this group's, else that of a group above.
    std::string in = path.substr(0, path.rfind('/'));
    while (!exists(in + "/" + layout.axes[axis]) && !in.empty()) in.resize(in.rfind('/'));
    const Dataset scale = dataset(in + "/" + layout.axes[axis]);
    if (scale.rows() != shape[axis])
      throw Error("{}: axis {} has length {}, its scale {} has {}", data.where(), axis, shape[axis], scale.path(),
                  scale.rows());
    const auto index = static_cast<unsigned>(axis);
    check_write(H5DSattach_scale(data.id(), scale.id(), index), *file_, data.where(),
                "cannot attach a dimension scale");
    check_write(H5DSset_label(data.id(), index, layout.axes[axis].c_str()), *file_, data.where(),
                "cannot label an axis");
  }
}

Dataset Group::write(const std::string& path, const std::vector<std::string>& values, const Layout& layout) {
  Dataset out = create_raw(path, Type::text, {static_cast<std::int64_t>(values.size())}, false, layout);
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  if (!values.empty())
    check_write(H5Dwrite(out.id(), memory_type(Type::text).id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()),
                *file_, out.where(), "cannot write");
  return out;
}

Dataset Group::dataset(const std::string& path) const {
  silence();
  const std::string full = absolute(path);
  if (!is_dataset(full)) throw Error("{}: {}: no such dataset", file_->name, full);
  return Dataset(own(H5Dopen2(id(), full.c_str(), H5P_DEFAULT), H5Dclose, file_->name + ": " + full,
                     "cannot open the dataset", file_),
                 file_, full);
}

// ---- questions ------------------------------------------------------------------------------------------------------

Shape Dataset::shape() const {
  silence();
  Handle space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) fail(where(), "cannot read the shape");
  std::vector<hsize_t> extent(static_cast<std::size_t>(rank));
  if (rank > 0 && H5Sget_simple_extent_dims(space.id(), extent.data(), nullptr) < 0)
    fail(where(), "cannot read the shape");
  return Shape(extent.begin(), extent.end());
}

std::int64_t Dataset::size() const {
  return product(shape(), 0);
}

std::int64_t Dataset::rows() const {
  const Shape now = shape();
  return now.empty() ? 1 : now[0];
}

std::int64_t Dataset::row_size() const {
  return product(shape(), 1);
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

// ---- reading --------------------------------------------------------------------------------------------------------

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
  if (!whole && (now.empty() || begin + count > now[0]))
    throw Error("{}: rows {} to {} asked for, shape is {}", where(), begin, begin + count, to_text(now));
  const std::int64_t total = whole ? product(now, 0) : count * product(now, 1);
  if (total == 0) return;

  Handle file_space = own(H5Dget_space(id()), H5Sclose, where(), "cannot read the shape");
  if (!whole) select_rows(file_space, now, begin, count, where());
  const Handle memory_space = make_rows_space(now, whole && !now.empty() ? now[0] : count);
  // HDF5 clips integers that do not fit; they are read wide and checked instead.
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
  const auto count = static_cast<std::size_t>(size());
  std::vector<std::string> out;
  if (count == 0) return out;
  Handle type = own(H5Dget_type(id()), H5Tclose, where(), "cannot read the type");
  if (H5Tis_variable_str(type.id()) > 0) {
    std::vector<char*> pointers(count, nullptr);
    check(H5Dread(id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()), where(), "cannot read");
    for (char* pointer : pointers) {
      out.emplace_back(pointer ? pointer : "");
      H5free_memory(pointer);
    }
    return out;
  }
  const std::size_t width = H5Tget_size(type.id());
  std::string flat(count * width, '\0');
  check(H5Dread(id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, flat.data()), where(), "cannot read");
  for (std::size_t i = 0; i < count; ++i) {
    const std::string item = flat.substr(i * width, width);
    out.push_back(item.substr(0, item.find('\0')));
  }
  return out;
}

// ---- writing --------------------------------------------------------------------------------------------------------

void Dataset::write_raw(Type type, const void* values, std::int64_t count, std::int64_t begin, bool whole) {
  silence();
  const Shape now = shape();
  const std::int64_t row = product(now, 1);
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
