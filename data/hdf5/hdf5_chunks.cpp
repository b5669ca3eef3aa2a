// Datasets as they are stored: rows in the stored type, chunks as their filters left them, and where they lie.
#include "data/hdf5/hdf5_internal.h"

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
  if (shape.empty() || begin < 0 || count < 0 || begin + count > shape[0])
    throw Error("{}: rows {} to {} asked for, shape is {}", data.where(), begin, begin + count, to_text(shape));
  Spaces out{own(H5Dget_space(data.id()), H5Sclose, data.where(), "cannot read the shape"),
             make_rows_space(shape, count)};
  select_rows(out.file, shape, begin, count, data.where());
  return out;
}

}  // namespace

std::int64_t Dataset::element_bytes() const {
  return static_cast<std::int64_t>(H5Tget_size(stored_type(*this).id()));
}

Shape Dataset::chunk() const {
  const Handle creation = creation_list(*this);
  std::vector<hsize_t> extent(shape().size());
  if (H5Pget_layout(creation.id()) != H5D_CHUNKED) return {};
  if (H5Pget_chunk(creation.id(), static_cast<int>(extent.size()), extent.data()) < 0)
    fail(where(), "cannot read the chunk shape");
  return Shape(extent.begin(), extent.end());
}

bool Dataset::filtered() const {
  return H5Pget_nfilters(creation_list(*this).id()) > 0;
}

void Dataset::read_row_bytes(std::int64_t begin, std::int64_t count, std::span<std::byte> out) const {
  const Spaces spaces = spaces_of_rows(*this, begin, count);
  if (static_cast<std::int64_t>(out.size()) != count * row_size() * element_bytes())
    throw Error("{}: {} bytes for {} rows", where(), out.size(), count);
  if (out.empty()) return;
  check(H5Dread(id(), stored_type(*this).id(), spaces.memory.id(), spaces.file.id(), H5P_DEFAULT, out.data()), where(),
        "cannot read");
}

void Dataset::append_row_bytes(std::span<const std::byte> values, std::int64_t added) {
  if (static_cast<std::int64_t>(values.size()) != added * row_size() * element_bytes())
    throw Error("{}: {} bytes appended as {} rows", where(), values.size(), added);
  const std::int64_t before = rows();
  resize(before + added);
  if (values.empty()) return;
  const Spaces spaces = spaces_of_rows(*this, before, added);
  check_write(H5Dwrite(id(), stored_type(*this).id(), spaces.memory.id(), spaces.file.id(), H5P_DEFAULT, values.data()),
              *file_, where(), "cannot write");
}

Dataset::StoredChunk Dataset::stored_chunk(const Shape& first) const {
  silence();
  unsigned mask = 0;
  haddr_t address = HADDR_UNDEF;
  hsize_t bytes = 0;
  check(H5Dget_chunk_info_by_coord(id(), coordinates(first).data(), &mask, &address, &bytes), where(),
        "cannot find a chunk");
  if (address == HADDR_UNDEF) throw Error("{}: the chunk at {} is not stored", where(), to_text(first));
  return {static_cast<std::int64_t>(address), static_cast<std::int64_t>(bytes), mask};
}

std::vector<std::byte> Dataset::read_chunk(const Shape& first, std::uint32_t* filter_mask) const {
  silence();
  const auto at = coordinates(first);
  hsize_t size = 0;
  check(H5Dget_chunk_storage_size(id(), at.data(), &size), where(), "cannot read a chunk");
  std::vector<std::byte> bytes(size);
  std::uint32_t mask = 0;
  check(H5Dread_chunk(id(), H5P_DEFAULT, at.data(), &mask, bytes.data()), where(), "cannot read a chunk");
  if (filter_mask) *filter_mask = mask;
  return bytes;
}

void Dataset::write_chunk(const Shape& first, std::span<const std::byte> bytes, std::uint32_t filter_mask) {
  silence();
  check_write(H5Dwrite_chunk(id(), H5P_DEFAULT, filter_mask, coordinates(first).data(), bytes.size(), bytes.data()),
              *file_, where(), "cannot write");
}

std::int64_t Dataset::file_address() const {
  silence();
  const haddr_t address = H5Dget_offset(id());
  if (address == HADDR_UNDEF) throw Error("{}: not stored in one piece", where());
  return static_cast<std::int64_t>(address);
}

}  // namespace routescope::data::hdf5
