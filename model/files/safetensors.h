// The safetensors container, read and written with every offset checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace routescope::model {

struct SafetensorsEntry {
  std::string name;
  kernels::DType dtype;  // f64, f32 or bf16
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data section
};

/// A file opened for reading (memory-mapped). Throws Error for a truncated file or a header that contradicts it: sizes
/// that do not match shapes, overlaps, gaps, offsets past the end, unknown types.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& file);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const;
  /// Throws Error if absent.
  const SafetensorsEntry& entry(const std::string& name) const;
  /// Converts into dst (f64 or f32, CPU). Throws Error if the tensor is absent or its shape is not `shape`.
  void read(const std::string& name, const std::vector<std::int64_t>& shape, kernels::Tensor dst) const;
  /// Elements [first, first + dst.numel()) of a tensor, flattened, converted into dst (f64 or f32, any device). Throws
  /// Error if it is absent or has fewer.
  void read_elements(const std::string& name, std::int64_t first, kernels::Tensor dst) const;

 private:
  std::filesystem::path file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  const std::byte* map_ = nullptr;
  std::size_t map_size_ = 0;
  std::size_t data_start_ = 0;
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
