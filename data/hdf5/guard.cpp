#include "data/hdf5/guard.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <string_view>
#include <vector>

namespace routescope::data::hdf5 {

namespace {

// The largest ratio of deflate is 1032.
constexpr std::int64_t kMostDeflated = 1040;
// Less than this is allocated whatever the file's size.
constexpr std::int64_t kHarmless = 64 << 20;

const char* kind_of(H5L_type_t type) {
  if (type == H5L_TYPE_SOFT) return "a soft link";
  return type == H5L_TYPE_EXTERNAL ? "a link to another file" : "a link of an unknown kind";
}

bool is_ieee(hid_t type) {
  for (const hid_t known : {H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_IEEE_F32LE, H5T_IEEE_F32BE})
    if (H5Tequal(type, known) > 0) return true;
  const Handle half = file_type(Type::f16);
  if (H5Tequal(type, half.id()) > 0) return true;
  check(H5Tset_order(half.id(), H5T_ORDER_BE), "HDF5", "cannot make the binary16 type");
  return H5Tequal(type, half.id()) > 0;
}

bool is_plain_integer(hid_t type) {
  const std::size_t bytes = H5Tget_size(type);
  const H5T_order_t order = H5Tget_order(type);
  return (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8) && H5Tget_precision(type) == 8 * bytes &&
         H5Tget_offset(type) == 0 && (bytes == 1 || order == H5T_ORDER_LE || order == H5T_ORDER_BE);
}

// Bytes that are searched: our files hold texts as labels and attributes, which are written first.
constexpr std::size_t kSearched = 1 << 20;
constexpr std::size_t kHead = 16;  // of a heap: "GCOL", version, 3 bytes, size; of an object in it: numbers, size

std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint64_t out = 0;
  std::memcpy(&out, bytes.data() + at, count);
  return out;
}

// Whether the objects of a heap lie one after the other and fill it. The last, number 0, is the free space.
bool is_whole(std::string_view heap) {
  std::size_t at = kHead;
  std::vector<bool> taken(1 << 16);
  while (heap.size() - at >= kHead) {
    const std::uint64_t index = number(heap, at, 2), size = number(heap, at + 8, 8);
    if (index == 0) return size == heap.size() - at;
    if (taken[index] || number(heap, at + 4, 4) != 0 || size > heap.size() - at - kHead) return false;
    taken[index] = true;
    at += kHead + (size + 7) / 8 * 8;
    if (at > heap.size()) return false;
  }
  return true;
}

}  // namespace

void require_hard_link(hid_t location, const std::string& path, const std::string& at) {
  H5L_info_t info;
  if (H5Lget_info(location, path.c_str(), &info, H5P_DEFAULT) < 0) fail(at, "cannot read the link");
  if (info.type != H5L_TYPE_HARD) throw Error("{}: is {}, expected data of this file itself", at, kind_of(info.type));
}

void require_own_storage(hid_t dataset, const FileState& file, const std::string& at) {
  const Handle creation = own(H5Dget_create_plist(dataset), H5Pclose, at, "cannot read how it is stored");
  const H5D_layout_t layout = H5Pget_layout(creation.id());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(creation.id()) > 0)
    throw Error("{}: keeps its values in other files, expected them in this file", at);
  if (layout < 0) fail(at, "cannot read how it is stored");
  const int filters = H5Pget_nfilters(creation.id());
  for (int i = 0; i < filters; ++i) {
    std::array<char, 64> name{};
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(creation.id(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                               name.size() - 1, name.data(), &config);
    if (filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE || filter == H5Z_FILTER_FLETCHER32) continue;
    throw Error("{}: is stored through filter {}{}, expected deflate, shuffle or fletcher32", at,
                static_cast<int>(filter), name[0] ? fmt::format(" ({})", name.data()) : "");
  }
  if (layout != H5D_CHUNKED) return;
  std::array<hsize_t, H5S_MAX_RANK> chunk{};
  const int rank = H5Pget_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data());
  if (rank < 0) fail(at, "cannot read the chunk shape");
  const Handle type = own(H5Dget_type(dataset), H5Tclose, at, "cannot read the type");
  auto bytes = static_cast<std::int64_t>(H5Tget_size(type.id()));
  for (int axis = 0; axis < rank; ++axis)
    bytes = multiplied(bytes, static_cast<std::int64_t>(chunk[static_cast<std::size_t>(axis)]), at);
  require_room(bytes, file, at);
}

void require_plain_type(const Handle& type, const std::string& at) {
  const H5T_class_t kind = H5Tget_class(type.id());
  if (kind == H5T_STRING || (kind == H5T_INTEGER && is_plain_integer(type.id())) ||
      (kind == H5T_FLOAT && is_ieee(type.id())))
    return;
  throw Error("{}: holds {}, expected numbers or text", at,
              kind == H5T_INTEGER || kind == H5T_FLOAT ? "numbers of a form that no processor has"
                                                       : "neither numbers nor text");
}

void require_room(std::int64_t bytes, const FileState& file, const std::string& at) {
  if (bytes <= kHarmless) return;
  const std::int64_t stored = file.bytes();
  if (bytes / kMostDeflated > stored)
    throw Error("{}: claims {} bytes, which the {} bytes of the file cannot hold", at, bytes, stored);
}

std::int64_t multiplied(std::int64_t a, std::int64_t b, const std::string& at) {
  std::int64_t out = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &out) || out > (std::int64_t{1} << 62))
    throw Error("{}: its shape is too large", at);
  return out;
}

void check_texts(const std::filesystem::path& file) {
  std::error_code unknown;
  const std::uintmax_t length = std::filesystem::file_size(file, unknown);
  std::ifstream in(file, std::ios::binary);
  std::string bytes(kSearched, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  const std::string_view all(bytes), mark("GCOL\1\0\0\0", 8);
  for (std::size_t at = all.find(mark); at != std::string_view::npos; at = all.find(mark, at + 1)) {
    if (all.size() - at < kHead) return;
    const std::uint64_t size = number(all, at + 8, 8);
    if (size < kHead || size > length || (size <= all.size() - at && !is_whole(all.substr(at, size))))
      throw Error("{}: the heap of texts at byte {} is damaged", file.string(), at);
  }
}

}  // namespace routescope::data::hdf5
