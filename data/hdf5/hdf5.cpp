// Errors, types and groups of the HDF5 layer.
#include "data/hdf5/hdf5.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "data/hdf5/hdf5_internal.h"
#include "data/hdf5/journal.h"

namespace routescope::data::hdf5 {

// ---- errors ---------------------------------------------------------------------------------------------------------

void silence() {
  thread_local const bool done = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  (void)done;
}

std::string last_error() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
        auto& message = *static_cast<std::string*>(out);
        if (message.empty() && entry->desc) message = entry->desc;
        return 0;
      },
      &text);
  // Failures of system calls come as "...: time = ..., errno = 28, error message = 'No space left on device', ...".
  static const std::string mark = "error message = '";
  if (const auto begin = text.find(mark); begin != std::string::npos) {
    const auto from = begin + mark.size();
    text = text.substr(from, text.find('\'', from) - from);
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "unknown HDF5 error" : text;
}

void fail(const std::string& where, const std::string& action) {
  throw Error("{}: {}: {}", where, action, last_error());
}

void fail_writing(FileState& file, const std::string& where, const std::string& action) {
  const std::string reason = last_error();
  file.give_up(reason);
  throw Error("{}: {}: {}", where, action, reason);
}

void FileState::give_up(const std::string& reason) {
  if (id < 0 || !failure.empty()) return;
  failure = reason;
  if (journal) journal->stop();
  silence();
  void* descriptor = nullptr;
  if (H5Fget_vfd_handle(id, H5P_DEFAULT, &descriptor) < 0) return;
  const int sink = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (sink < 0) return;
  ::dup3(sink, *static_cast<int*>(descriptor), O_CLOEXEC);
  ::close(sink);
}

// ---- handles, types, spaces -----------------------------------------------------------------------------------------

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
    file_ = std::move(other.file_);
  }
  return *this;
}

void Handle::reset() {
  if (id_ >= 0) {
    silence();
    // Flushed first: a dataset whose closing fails stays half open, and HDF5 crashes over it at the end of the process.
    const bool may_write = file_ && file_->writable && file_->failure.empty();
    if (may_write && H5Iget_type(id_) == H5I_DATASET && H5Dflush(id_) < 0) file_->give_up(last_error());
    if (close_(id_) < 0 && file_) file_->give_up(last_error());
  }
  id_ = -1;
}

half to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto pack = [sign](std::uint32_t low) { return half{static_cast<std::uint16_t>(sign | low)}; };
  if (magnitude > 0x7f800000u) return pack(0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return pack(0x7c00u);  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the spacing is 2^-24: adding 0.5 leaves a float whose last place is exactly that, so the addition
    // rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return pack(std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return pack((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

float to_float(half value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x400u) {
    const float tiny = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

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

// ---- groups ---------------------------------------------------------------------------------------------------------

std::string Group::absolute(const std::string& path) const {
  if (!path.empty() && path.front() == '/') return path;
  return fmt::format("{}/{}", path_ == "/" ? "" : path_, path);
}

bool Group::exists(const std::string& path) const {
  silence();
  const std::string full = absolute(path);
  // H5Lexists() is an error where a group on the way is missing, so every prefix is asked for.
  for (std::size_t slash = full.find('/', 1);; slash = full.find('/', slash + 1)) {
    const std::string prefix = full.substr(0, slash);
    if (prefix != "/" && H5Lexists(id(), prefix.c_str(), H5P_DEFAULT) <= 0) return false;
    if (slash == std::string::npos || slash + 1 == full.size()) return true;
  }
}

namespace {

bool has_kind(hid_t location, const std::string& path, H5O_type_t kind) {
  H5O_info_t info;
  return H5Oget_info_by_name2(location, path.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >= 0 && info.type == kind;
}

}  // namespace

bool Group::is_group(const std::string& path) const {
  return exists(path) && has_kind(id(), absolute(path), H5O_TYPE_GROUP);
}

bool Group::is_dataset(const std::string& path) const {
  return exists(path) && has_kind(id(), absolute(path), H5O_TYPE_DATASET);
}

std::vector<std::string> Group::names() const {
  silence();
  std::vector<std::string> out;
  const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  check(H5Literate(id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &out), where(), "cannot list the group");
  return out;
}

Group Group::group(const std::string& path) const {
  silence();
  const std::string full = absolute(path);
  if (!is_group(full)) throw Error("{}: {}: no such group", file_->name, full);
  return Group(own(H5Gopen2(id(), full.c_str(), H5P_DEFAULT), H5Gclose, file_->name + ": " + full,
                   "cannot open the group", file_),
               file_, full);
}

Group Group::create_group(const std::string& path) {
  silence();
  const std::string full = absolute(path);
  if (exists(full)) return group(full);
  const std::string at = file_->name + ": " + full;
  Handle links = own(H5Pcreate(H5P_LINK_CREATE), H5Pclose, at, "cannot make a property list");
  check(H5Pset_create_intermediate_group(links.id(), 1), at, "cannot set a property");
  const hid_t made = H5Gcreate2(id(), full.c_str(), links.id(), H5P_DEFAULT, H5P_DEFAULT);
  if (made < 0) fail_writing(*file_, at, "cannot create the group");
  return Group(Handle(made, H5Gclose, file_), file_, full);
}

void Group::remove(const std::string& path) {
  silence();
  const std::string full = absolute(path);
  check_write(H5Ldelete(id(), full.c_str(), H5P_DEFAULT), *file_, file_->name + ": " + full, "cannot remove");
}

}  // namespace routescope::data::hdf5
