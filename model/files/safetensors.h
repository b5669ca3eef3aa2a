// The safetensors container, read and written with every offset checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/base/files.h"
#include "kernels/tensor.h"

namespace routescope::model {

struct SafetensorsEntry {
  std::string name;
  kernels::DType dtype;  // f64, f32 or bf16
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data section
};

/// What stands in a file before the data.
struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

/// The length of the header, from the first 8 bytes of a file of `file_size` bytes. Throws Error, which names `where`,
/// unless as many bytes follow; more than 100,000,000 are refused, as the format says.
std::uint64_t safetensors_header_length(std::string_view first_bytes, std::uint64_t file_size,
                                        const std::string& where);
/// Throws Error, which names `where` and the tensor, unless the tensors lie one after the other, without overlaps or
/// gaps, in `data_size` bytes, each of the size that its type and shape need. Names stand once.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_size, const std::string& where);

/// A file opened for reading. Throws Error for a truncated file or a header that contradicts it, and if the file
/// shrinks while it is read.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& file);
  /// The same for a file that is open; `file` names it in messages.
  SafetensorsReader(data::FileDescriptor descriptor, const std::filesystem::path& file);

  const std::filesystem::path& file() const { return file_; }
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  bool contains(const std::string& name) const { return places_.contains(name); }
  /// Throws Error if absent.
  const SafetensorsEntry& entry(const std::string& name) const;
  /// Throws Error if the tensor is absent or its shape is not `shape`.
  void expect_shape(const std::string& name, const std::vector<std::int64_t>& shape) const;
  /// Converts into dst (f64 or f32, any device). Throws Error as expect_shape() does, and for a number that is not
  /// finite in the type of `dst`.
  void read(const std::string& name, const std::vector<std::int64_t>& shape, kernels::Tensor dst) const;
  /// Elements [first, first + dst.numel()) of a tensor, flattened, converted into dst (f64 or f32, any device). Throws
  /// Error if it is absent or has fewer.
  void read_elements(const std::string& name, std::int64_t first, kernels::Tensor dst) const;

 private:
  void read_bytes(void* to, std::size_t count, std::uint64_t offset) const;
  void read_pieces(const SafetensorsEntry& entry, std::int64_t first, kernels::Tensor dst, bool finite) const;

  std::filesystem::path file_;
  data::FileDescriptor descriptor_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t> places_;  // of names in header_.entries
  std::uint64_t data_start_ = 0;
};

struct SafetensorsItem {
  std::string name;
  std::vector<std::int64_t> shape;
  kernels::Tensor data;                        // CPU
  kernels::DType dtype = kernels::DType::f32;  // as stored
};

/// What stands in a file before the data: the header's length and the header, for tensors of these names, shapes and
/// types, one after the other in this order.
std::string safetensors_header(std::span<const SafetensorsItem> items,
                               const std::map<std::string, std::string>& metadata);

/// Gives `put` the numbers of `data` (any device) as the bytes of `dtype`, piece by piece.
void stream_elements(kernels::Tensor data, kernels::DType dtype,
                     const std::function<void(const void*, std::size_t bytes)>& put);

/// Writes a file beside its name, syncs it and renames it. Throws Error; nothing is left behind then.
void write_safetensors(const std::filesystem::path& file, std::span<const SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata);

}  // namespace routescope::model
