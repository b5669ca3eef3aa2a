#include "tests/fuzz/hdf5_edits.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <vector>

namespace routescope::fuzz {

namespace {

using Names = std::vector<std::string>;

herr_t collect(hid_t, const char* name, const H5O_info_t* info, void* out) {
  if (info->type == H5O_TYPE_DATASET && *name != '.') static_cast<Names*>(out)->emplace_back(name);
  return 0;
}

hid_t some_type(Script& script) {
  const std::array<hid_t, 14> types{H5T_IEEE_F64LE, H5T_IEEE_F32LE, H5T_IEEE_F64BE,  H5T_STD_I64LE, H5T_STD_I32LE,
                                    H5T_STD_U8LE,   H5T_STD_I8LE,   H5T_STD_U64LE,   H5T_STD_I32BE, H5T_STD_U16LE,
                                    H5T_C_S1,       H5T_C_S1,       H5T_STD_REF_OBJ, H5T_STD_B32LE};
  const std::uint32_t chosen = script.below(types.size());
  const hid_t out = H5Tcopy(types[chosen]);
  if (chosen == 10) H5Tset_size(out, H5T_VARIABLE);
  if (chosen == 11) H5Tset_size(out, 1 + script.below(40));
  return out;
}

std::vector<hsize_t> some_shape(Script& script) {
  constexpr std::array<hsize_t, 16> lengths{
      0, 1, 2, 3, 4, 5, 8, 6, 18, 300, 5000, 1000, 1U << 20U, hsize_t{1} << 31U, hsize_t{1} << 40U, hsize_t{1} << 60U};
  std::vector<hsize_t> out(script.below(5));
  for (hsize_t& length : out) length = lengths[script.below(lengths.size())];
  return out;
}

void fill(hid_t data, hid_t type, Script& script) {
  const hid_t space = H5Dget_space(data);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  H5Sclose(space);
  if (count <= 0 || count > 4096 || H5Tget_class(type) == H5T_REFERENCE) return;
  const auto n = static_cast<std::size_t>(count);
  if (H5Tis_variable_str(type) > 0) {
    const std::string text = script.text();
    const std::vector<const char*> texts(n, text.c_str());
    H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data());
    return;
  }
  std::vector<std::uint8_t> bytes(n * H5Tget_size(type));
  const std::uint32_t some = script.below(64);
  std::vector<std::uint8_t> pattern(1 + some);
  for (std::uint8_t& byte : pattern) byte = script.next();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern[i % pattern.size()];
  H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data());
}

void replace_dataset(hid_t file, const std::string& path, Script& script) {
  const hid_t type = some_type(script);
  const std::vector<hsize_t> shape = some_shape(script);
  double bytes = static_cast<double>(H5Tget_size(type));
  for (const hsize_t length : shape) bytes *= static_cast<double>(length);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  const std::uint32_t storage = script.below(8);
  if (!shape.empty() && (bytes > 1e6 || storage < 3)) {
    std::vector<hsize_t> chunk(shape.size(), 1 + script.below(7));
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
      chunk[axis] = std::max<hsize_t>(1, std::min(chunk[axis], shape[axis]));
    H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
    if (storage == 1) H5Pset_deflate(creation, 1);
    if (storage == 2) H5Pset_filter(creation, 32000, H5Z_FLAG_OPTIONAL, 0, nullptr);
  } else if (storage == 3 && bytes > 0) {
    H5Pset_external(creation, "/etc/hostname", 0, H5F_UNLIMITED);
  }
  const hid_t space = shape.empty() ? H5Screate(script.below(2) == 0 ? H5S_SCALAR : H5S_NULL)
                                    : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  H5Ldelete(file, path.c_str(), H5P_DEFAULT);
  const hid_t data = H5Dcreate2(file, path.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  if (data >= 0) {
    if (storage != 3) fill(data, type, script);
    H5Dclose(data);
  }
  H5Sclose(space);
  H5Pclose(creation);
  H5Tclose(type);
}

void overwrite_values(hid_t file, const std::string& path, Script& script) {
  const hid_t data = H5Dopen2(file, path.c_str(), H5P_DEFAULT);
  if (data < 0) return;
  const hid_t type = H5Dget_type(data);
  fill(data, type, script);
  H5Tclose(type);
  H5Dclose(data);
}

void resize(hid_t file, const std::string& path, Script& script) {
  const hid_t data = H5Dopen2(file, path.c_str(), H5P_DEFAULT);
  if (data < 0) return;
  const hid_t space = H5Dget_space(data);
  std::array<hsize_t, H5S_MAX_RANK> extent{};
  if (H5Sget_simple_extent_dims(space, extent.data(), nullptr) > 0) {
    extent[0] = some_shape(script).empty() ? extent[0] + 1 : script.below(40);
    H5Dset_extent(data, extent.data());
  }
  H5Sclose(space);
  H5Dclose(data);
}

void change_attribute(hid_t file, const std::string& path, Script& script) {
  const hid_t object = H5Oopen(file, script.below(2) == 0 ? "/" : path.c_str(), H5P_DEFAULT);
  if (object < 0) return;
  Names names;
  H5Aiterate2(
      object, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
        static_cast<Names*>(out)->emplace_back(name);
        return 0;
      },
      &names);
  if (!names.empty()) {
    const std::string& name = names[script.below(static_cast<std::uint32_t>(names.size()))];
    H5Adelete(object, name.c_str());
    if (script.below(4) != 0) {
      const hid_t type = some_type(script);
      std::vector<hsize_t> shape = some_shape(script);
      for (hsize_t& length : shape) length = std::min<hsize_t>(length, 20);
      const hid_t space = shape.empty() ? H5Screate(H5S_SCALAR)
                                        : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
      const hid_t attribute = H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT);
      const std::string text = script.text();
      const char* pointer = text.c_str();
      if (attribute >= 0 && shape.empty() && H5Tis_variable_str(type) > 0) H5Awrite(attribute, type, &pointer);
      H5Aclose(attribute);
      H5Sclose(space);
      H5Tclose(type);
    }
  }
  H5Oclose(object);
}

void replace_link(hid_t file, const std::string& path, const Names& names, Script& script) {
  H5Ldelete(file, path.c_str(), H5P_DEFAULT);
  const std::string& other = names[script.below(static_cast<std::uint32_t>(names.size()))];
  switch (script.below(5)) {
    case 0:
      H5Lcreate_soft(other.c_str(), file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 1:
      H5Lcreate_external("routing.h5", other.c_str(), file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 2:
      H5Lcreate_hard(file, "/", file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 3:
      H5Lcreate_hard(file, other.c_str(), file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    default:  // it is gone
      break;
  }
}

}  // namespace

bool edit_hdf5(const std::filesystem::path& name, Script& script) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  const hid_t file = H5Fopen(name.c_str(), H5F_ACC_RDWR, access);
  H5Pclose(access);
  if (file < 0) return false;
  Names names;
  H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, collect, &names, H5O_INFO_BASIC);
  constexpr int most_edits = 8;
  for (int edits = 0; !names.empty() && !script.empty() && edits < most_edits; ++edits) {
    const std::string path = names[script.below(static_cast<std::uint32_t>(names.size()))];
    switch (script.below(8)) {
      case 0:
      case 1:
      case 2:
        replace_dataset(file, path, script);
        break;
      case 3:
      case 4:
        overwrite_values(file, path, script);
        break;
      case 5:
        resize(file, path, script);
        break;
      case 6:
        change_attribute(file, path, script);
        break;
      default:
        // The last change: HDF5 1.10 crashes when it changes a group with links in a circle further.
        replace_link(file, path, names, script);
        edits = most_edits;
    }
  }
  return H5Fclose(file) >= 0;
}

}  // namespace routescope::fuzz
