// Groups: finding datasets, and making new ones with their units, description, axes and storage.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/dataset.h"
#include "data/hdf5/object.h"
#include "data/hdf5/type.h"

namespace routescope::data::hdf5 {

/// How a dataset is stored, and how it is described.
struct Layout {
  std::string units = {};        // "1" for a pure number, "" for text
  std::string description = {};  // one sentence
  /// The name of each axis. Each names a one-dimensional dataset of that length, which must exist already, in this
  /// group or one above, and is attached as its dimension scale. A dataset whose only axis has the dataset's own name
  /// is such a scale.
  std::vector<std::string> axes = {};
  int deflate = 0;   // 1..9: shuffled and deflated
  Shape chunk = {};  // empty: chosen
};

class Group : public Object {
 public:
  Group() = default;
  /// Whether a group or dataset of this path exists ("a/b" may be asked for where "a" does not exist). Throws Error for
  /// soft and external links (guard.h); so does everything below.
  bool exists(const std::string& path) const;
  bool is_group(const std::string& path) const;
  bool is_dataset(const std::string& path) const;
  /// The names of what this group holds directly, in alphabetical order.
  std::vector<std::string> names() const;

  /// Groups on the way are made where they are missing; a group that exists is opened.
  Group create_group(const std::string& path);
  Group group(const std::string& path) const;
  Dataset dataset(const std::string& path) const;

  /// A new dataset with its values; groups on the way are made. Shape {} is a scalar.
  template <Element T>
  Dataset write(const std::string& path, std::span<const T> values, const Shape& shape, const Layout& layout = {}) {
    Dataset out = create(path, type_of<T>(), shape, layout);
    out.write_raw(type_of<T>(), values.data(), static_cast<std::int64_t>(values.size()), 0, true);
    return out;
  }
  template <Element T>
  Dataset write(const std::string& path, const std::vector<T>& values, const Shape& shape, const Layout& layout = {}) {
    return write(path, std::span<const T>(values), shape, layout);
  }
  /// Labels, [n].
  Dataset write(const std::string& path, const std::vector<std::string>& values, const Layout& layout = {});

  /// A new dataset of fixed shape, to be filled with write_rows().
  Dataset create(const std::string& path, Type type, const Shape& shape, const Layout& layout = {});
  /// A new dataset [0, row...] that append() makes longer.
  Dataset create_growing(const std::string& path, Type type, const Shape& row, const Layout& layout = {});

  /// dataset(path).read<T>(), and its shape.
  template <Element T>
  std::vector<T> read(const std::string& path, Shape* shape = nullptr) const {
    const Dataset data = dataset(path);
    if (shape) *shape = data.shape();
    return data.read<T>();
  }
  std::vector<std::string> read_text(const std::string& path) const { return dataset(path).read_text(); }
  void remove(const std::string& path);

 protected:
  using Object::Object;

 private:
  std::string absolute(const std::string& path) const;
  void create_parent(const std::string& full);
  Dataset create_raw(const std::string& path, Type type, const Shape& shape, bool growing, const Layout& layout);
  void describe(Dataset& data, const std::string& path, const Layout& layout);
};

/// Calls `visit` with every dataset below a group, in alphabetical order, each group once. Throws Error for a link that
/// is none to data of this file.
void each_dataset(const Group& group, const std::function<void(const Dataset&)>& visit);

}  // namespace routescope::data::hdf5
