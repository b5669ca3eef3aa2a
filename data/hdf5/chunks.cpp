#include "data/hdf5/chunks.h"

#include <algorithm>
#include <limits>

#include "data/hdf5/guard.h"

namespace routescope::data::hdf5 {

namespace {

Handle creation_list(const Dataset& data) {
  silence();
  return own(H5Dget_create_plist(data.id()), H5Pclose, data.where(), "cannot read how it is stored");
}

Handle stored_type(const Dataset& data) {
  silence();
  return own(H5Dget_type(data.id()), H5Tclose, data.where(), "cannot read the type");
}

std::vector<hsize_t> coordinates(const Shape& first) {
  return {first.begin(), first.end()};
}

// The file space of rows [begin, begin + count), and a memory space as large.
struct Spaces {
  Handle file, memory;
};
Spaces spaces_of_rows(const Dataset& data, std::int64_t begin, std::int64_t count) {
  const Shape shape = data.shape();
  if (shape.empty() || begin < 0 || count < 0 || begin > shape[0] || count > shape[0] - begin)
    throw Error("{}: rows {} to {} asked for, shape is {}", data.where(), begin, begin + count, to_text(shape));
  Spaces out{own(H5Dget_space(data.id()), H5Sclose, data.where(), "cannot read the shape"),
             make_rows_space(shape, count)};
  select_rows(out.file, shape, begin, count, data.where());
  return out;
}

}  // namespace

std::int64_t element_bytes(const Dataset& data) {
  return static_cast<std::int64_t>(H5Tget_size(stored_type(data).id()));
}

Shape chunk_shape(const Dataset& data) {
  const Handle creation = creation_list(data);
  std::vector<hsize_t> extent(data.shape().size());
  if (H5Pget_layout(creation.id()) != H5D_CHUNKED) return {};
  if (H5Pget_chunk(creation.id(), static_cast<int>(extent.size()), extent.data()) < 0)
    fail(data.where(), "cannot read the chunk shape");
  return Shape(extent.begin(), extent.end());
}

bool is_filtered(const Dataset& data) {
  return H5Pget_nfilters(creation_list(data).id()) > 0;
}

void read_row_bytes(const Dataset& data, std::int64_t begin, std::int64_t count, std::span<std::byte> out) {
  const Spaces spaces = spaces_of_rows(data, begin, count);
  if (static_cast<std::int64_t>(out.size()) != count * data.row_size() * element_bytes(data))
    throw Error("{}: {} bytes for {} rows", data.where(), out.size(), count);
  if (out.empty()) return;
  check(H5Dread(data.id(), stored_type(data).id(), spaces.memory.id(), spaces.file.id(), H5P_DEFAULT, out.data()),
        data.where(), "cannot read");
}

void append_row_bytes(Dataset& data, std::span<const std::byte> values, std::int64_t added) {
  if (static_cast<std::int64_t>(values.size()) != added * data.row_size() * element_bytes(data))
    throw Error("{}: {} bytes appended as {} rows", data.where(), values.size(), added);
  const std::int64_t before = data.rows();
  data.resize(before + added);
  if (values.empty()) return;
  const Spaces spaces = spaces_of_rows(data, before, added);
  check_write(
      H5Dwrite(data.id(), stored_type(data).id(), spaces.memory.id(), spaces.file.id(), H5P_DEFAULT, values.data()),
      data.file_state(), data.where(), "cannot write");
}

StoredChunk stored_chunk(const Dataset& data, const Shape& first) {
  silence();
  unsigned mask = 0;
  haddr_t address = HADDR_UNDEF;
  hsize_t bytes = 0;
  check(H5Dget_chunk_info_by_coord(data.id(), coordinates(first).data(), &mask, &address, &bytes), data.where(),
        "cannot find a chunk");
  if (address == HADDR_UNDEF) throw Error("{}: the chunk at {} is not stored", data.where(), to_text(first));
  return {static_cast<std::int64_t>(address), static_cast<std::int64_t>(bytes), mask};
}

std::vector<std::byte> read_chunk(const Dataset& data, const Shape& first, std::uint32_t* filter_mask) {
  silence();
  const auto at = coordinates(first);
  hsize_t size = 0;
  check(H5Dget_chunk_storage_size(data.id(), at.data(), &size), data.where(), "cannot read a chunk");
  require_room(static_cast<std::int64_t>(std::min<hsize_t>(size, std::numeric_limits<std::int64_t>::max())),
               data.file_state(), data.where());
  std::vector<std::byte> bytes(size);
  std::uint32_t mask = 0;
  check(H5Dread_chunk(data.id(), H5P_DEFAULT, at.data(), &mask, bytes.data()), data.where(), "cannot read a chunk");
  if (filter_mask) *filter_mask = mask;
  return bytes;
}

void write_chunk(Dataset& data, const Shape& first, std::span<const std::byte> bytes, std::uint32_t filter_mask) {
  silence();
  check_write(
      H5Dwrite_chunk(data.id(), H5P_DEFAULT, filter_mask, coordinates(first).data(), bytes.size(), bytes.data()),
      data.file_state(), data.where(), "cannot write");
}

std::int64_t file_address(const Dataset& data) {
  silence();
  const haddr_t address = H5Dget_offset(data.id());
  if (address == HADDR_UNDEF) throw Error("{}: not stored in one piece", data.where());
  return static_cast<std::int64_t>(address);
}

}  // namespace routescope::data::hdf5
