#include "data/hdf5/group.h"

#include <hdf5_hl.h>

#include <algorithm>
#include <set>

#include "data/hdf5/guard.h"

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

std::int64_t elements(const Shape& shape) {
  std::int64_t out = 1;
  for (const std::int64_t extent : shape) out *= extent;
  return out;
}

// A damaged object is an error, and no object of another kind.
H5O_type_t kind_of(hid_t location, const std::string& path, const std::string& at) {
  H5O_info_t info;
  if (H5Oget_info_by_name2(location, path.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) fail(at, "cannot read");
  return info.type;
}

}  // namespace

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
    if (prefix != "/") {
      if (H5Lexists(id(), prefix.c_str(), H5P_DEFAULT) <= 0) return false;
      require_hard_link(id(), prefix, file_->name + ": " + prefix);
    }
    if (slash == std::string::npos || slash + 1 == full.size()) return true;
  }
}

bool Group::is_group(const std::string& path) const {
  return exists(path) && kind_of(id(), absolute(path), file_->name + ": " + absolute(path)) == H5O_TYPE_GROUP;
}

bool Group::is_dataset(const std::string& path) const {
  return exists(path) && kind_of(id(), absolute(path), file_->name + ": " + absolute(path)) == H5O_TYPE_DATASET;
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
  create_parent(full);
  const std::string at = file_->name + ": " + full;
  Handle creation = own(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, at, "cannot make a property list");
  check(H5Pset_obj_track_times(creation.id(), false), at, "cannot set a property");
  const hid_t made = H5Gcreate2(id(), full.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT);
  if (made < 0) fail_writing(*file_, at, "cannot create the group");
  return Group(Handle(made, H5Gclose, file_), file_, full);
}

void Group::create_parent(const std::string& full) {
  if (const std::size_t slash = full.rfind('/'); slash != 0) create_group(full.substr(0, slash));
}

void Group::remove(const std::string& path) {
  silence();
  const std::string full = absolute(path);
  check_write(H5Ldelete(id(), full.c_str(), H5P_DEFAULT), *file_, file_->name + ": " + full, "cannot remove");
}

Dataset Group::dataset(const std::string& path) const {
  silence();
  const std::string full = absolute(path);
  if (!is_dataset(full)) throw Error("{}: {}: no such dataset", file_->name, full);
  const std::string at = file_->name + ": " + full;
  Handle opened = own(H5Dopen2(id(), full.c_str(), H5P_DEFAULT), H5Dclose, at, "cannot open the dataset", file_);
  require_own_storage(opened.id(), *file_, at);
  return Dataset(std::move(opened), file_, full);
}

Dataset Group::create_raw(const std::string& path, Type type, const Shape& shape, bool growing, const Layout& layout) {
  silence();
  const std::string full = absolute(path);
  const std::string at = file_->name + ": " + full;
  if (exists(full)) throw Error("{}: exists already", at);
  create_parent(full);
  Handle creation = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, at, "cannot make a property list");
  check(H5Pset_obj_track_times(creation.id(), false), at, "cannot set a property");
  const Handle stored = file_type(type);
  const bool empty = !growing && elements(shape) == 0;
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
  const hid_t made = H5Dcreate2(id(), full.c_str(), stored.id(), space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT);
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

namespace {

constexpr int kMostDepth = 100;

// A group may have links to itself or to a group above: each one is visited once.
void visit_group(const Group& group, const std::function<void(const Dataset&)>& visit, std::set<haddr_t>& seen,
                 int depth) {
  if (depth > kMostDepth) throw Error("{}: found more than {} groups in each other", group.where(), kMostDepth);
  H5O_info_t info;
  if (H5Oget_info2(group.id(), &info, H5O_INFO_BASIC) < 0) fail(group.where(), "cannot read the group");
  if (!seen.insert(info.addr).second) return;
  for (const std::string& name : group.names()) {
    if (group.is_group(name))
      visit_group(group.group(name), visit, seen, depth + 1);
    else if (group.is_dataset(name))
      visit(group.dataset(name));
  }
}

}  // namespace

void each_dataset(const Group& group, const std::function<void(const Dataset&)>& visit) {
  std::set<haddr_t> seen;
  visit_group(group, visit, seen, 0);
}

}  // namespace routescope::data::hdf5
