// The HDF5 layer: files, groups, datasets and attributes that close themselves, and one-line errors that name the file
// and the path inside it. Everything this project stores in HDF5 goes through here.
#pragma once

#include <hdf5.h>

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace routescope::data {
class Journal;
struct JournalMark;
}  // namespace routescope::data

namespace routescope::data::hdf5 {

using Shape = std::vector<std::int64_t>;

/// Element types as stored. f16 is IEEE binary16, text a variable-length UTF-8 string.
enum class Type { f64, f32, f16, i64, i32, u8, text };

/// IEEE binary16. It only stores; arithmetic is done in float.
struct half {
  std::uint16_t bits = 0;
};
/// Rounded to nearest even; overflow becomes infinity, NaN stays NaN.
half to_half(float value);
float to_float(half value);

template <class T>
concept Element = std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, half> ||
    std::same_as<T, std::int64_t> || std::same_as<T, std::int32_t> || std::same_as<T, std::uint8_t>;

template <Element T>
constexpr Type type_of() {
  if constexpr (std::same_as<T, double>) return Type::f64;
  if constexpr (std::same_as<T, float>) return Type::f32;
  if constexpr (std::same_as<T, half>) return Type::f16;
  if constexpr (std::same_as<T, std::int64_t>) return Type::i64;
  if constexpr (std::same_as<T, std::int32_t>) return Type::i32;
  return Type::u8;
}

/// What everything opened in one file shares.
struct FileState {
  std::string name;  // for errors
  hid_t id = -1;     // -1: closed
  bool writable = false;
  std::string failure;                         // why a write failed; empty: none did
  std::shared_ptr<Journal> journal = nullptr;  // of a file that has one and is being written

  /// After a failed write nothing more reaches the file: it stays as the last successful write left it, and closing
  /// works. (HDF5 would try again and again to write what it still holds, and crashes at the end of the process.)
  void give_up(const std::string& reason);
};

/// Owns one HDF5 identifier of any kind. Closing a dataset can be what writes it; if that fails, the file is told.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close, std::shared_ptr<FileState> file = nullptr)
      : id_(id), close_(close), file_(std::move(file)) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_), file_(std::move(other.file_)) {}
  Handle& operator=(Handle&& other) noexcept;
  void reset();
  hid_t release() { return std::exchange(id_, -1); }
  hid_t id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
  std::shared_ptr<FileState> file_;
};

/// What carries attributes: a group or a dataset.
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
  /// For calls to the C API that this layer does not cover.
  hid_t id() const { return handle_.id(); }

 protected:
  Object() = default;
  Object(Handle handle, std::shared_ptr<FileState> file, std::string path)
      : handle_(std::move(handle)), file_(std::move(file)), path_(std::move(path)) {}
  void set_raw(const std::string& name, Type type, const void* values, std::int64_t count);  // count -1: a scalar
  Handle open_attribute(const std::string& name, H5T_class_t accepted, H5T_class_t also) const;

  Handle handle_;
  std::shared_ptr<FileState> file_;
  std::string path_;
};

/// How a dataset is stored and what it says about itself.
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

class Dataset : public Object {
 public:
  Dataset() = default;
  Shape shape() const;
  std::int64_t size() const;  // elements
  std::int64_t rows() const;  // length of the first axis
  bool is_integer() const;
  bool is_float() const;
  bool is_text() const;

  /// The whole dataset, converted. Throws Error for text, for floating-point numbers read as integers, and for an
  /// integer that does not fit.
  template <Element T>
  std::vector<T> read() const {
    std::vector<T> out(static_cast<std::size_t>(size()));
    read_raw(type_of<T>(), out.data(), -1, 0);
    return out;
  }
  /// Rows [begin, begin + count) of the first axis.
  template <Element T>
  std::vector<T> read_rows(std::int64_t begin, std::int64_t count) const {
    std::vector<T> out(static_cast<std::size_t>(row_size() * count));
    read_raw(type_of<T>(), out.data(), begin, count);
    return out;
  }
  std::vector<std::string> read_text() const;

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

  /// Writer: everything of this dataset goes to the operating system. Reader (SWMR): what the writer has added is seen.
  void flush();
  void refresh();

  // ---- Values and chunks as they are stored, for copies that change no bit ----

  std::int64_t element_bytes() const;
  Shape chunk() const;  // empty: not chunked
  bool filtered() const;
  /// As read_rows() and append(), in the stored type.
  void read_row_bytes(std::int64_t begin, std::int64_t count, std::span<std::byte> out) const;
  void append_row_bytes(std::span<const std::byte> values, std::int64_t rows);
  /// Where a chunk lies in the file. `first` are the coordinates of its first element. Takes a time proportional to the
  /// number of chunks before it (HDF5 1.10). Throws Error for one that is not stored.
  struct StoredChunk {
    std::int64_t address = 0, bytes = 0;
    std::uint32_t filter_mask = 0;  // a bit for each filter that was left out
  };
  StoredChunk stored_chunk(const Shape& first) const;
  std::vector<std::byte> read_chunk(const Shape& first, std::uint32_t* filter_mask = nullptr) const;
  void write_chunk(const Shape& first, std::span<const std::byte> bytes, std::uint32_t filter_mask);
  /// Where the values of a dataset that is not chunked begin in the file. Throws Error.
  std::int64_t file_address() const;

 private:
  friend class Group;
  using Object::Object;
  std::int64_t row_size() const;
  void read_raw(Type type, void* out, std::int64_t begin, std::int64_t count) const;
  void write_raw(Type type, const void* values, std::int64_t count, std::int64_t begin, bool whole);
  void append_raw(Type type, const void* values, std::int64_t count, std::int64_t rows);
};

class Group : public Object {
 public:
  Group() = default;
  /// Whether a group or dataset of this path exists ("a/b" may be asked for where "a" does not exist).
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
  std::string absolute(const std::string& path) const;
  Dataset create_raw(const std::string& path, Type type, const Shape& shape, bool growing, const Layout& layout);
  void describe(Dataset& data, const std::string& path, const Layout& layout);
};

/// A file, seen as its root group.
class File : public Group {
 public:
  File() = default;
  using Group::create;
  /// A new file; an existing one is replaced. Write results through write_atomically() (files.h), so that they are
  /// complete or absent.
  static File create(const std::filesystem::path& file);
  /// A new file that start_swmr() can be called on, with a journal (data/journal.h) that is nowhere yet. The journal
  /// takes the values of datasets as well until journal_values(false).
  static File create_for_swmr(const std::filesystem::path& file);
  /// Read-only. A file that another process is writing in SWMR mode, or that such a writer left when it was killed,
  /// opens as well; what was opened then shows new rows after Dataset::refresh().
  static File open(const std::filesystem::path& file);
  /// Read-only, as the file's journal says that it is: as the last whole entry found it, whatever has happened to the
  /// file itself. It stays like that. Nothing if there is no journal, or if it belongs to another file. Throws Error.
  static std::optional<File> open_with_journal(const std::filesystem::path& file);
  /// For changes in place.
  static File open_writable(const std::filesystem::path& file);

  /// From here on others may read while this process appends. Datasets, groups and attributes can no longer be added.
  void start_swmr();
  /// Whether values of datasets that reach the operating system from now on go into the journal. Flush what is to be
  /// treated otherwise before.
  void journal_values(bool on);
  /// The journal of a file from create_for_swmr() gets its name (journal_name()) and is synced; it is kept up to date
  /// from then on.
  void publish_journal(const std::filesystem::path& journal, const JournalMark& mark);
  /// What was flushed is on the disk when this returns. `file` is the present name.
  void sync(const std::filesystem::path& file);
  /// Everything goes to the operating system.
  void flush();
  /// Closes. Throws Error if anything that was written, at any time, did not reach the file; the destructor cannot
  /// tell, so a writer calls this in the end. Datasets and groups of this file must be gone.
  void close();
  ~File();
  File(File&&) noexcept = default;
  File& operator=(File&& other) noexcept;

 private:
  explicit File(std::shared_ptr<FileState> state);
  void close_quietly() noexcept;
};

}  // namespace routescope::data::hdf5
