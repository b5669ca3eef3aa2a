// The safetensors container, read and written with every offset checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace routescope {

struct SafetensorsEntry {
  std::string name;
  DType dtype;  // f64, f32 or bf16
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
  void read(const std::string& name, const std::vector<std::int64_t>& shape, Tensor dst) const;

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
  Tensor data;               // CPU
  DType dtype = DType::f32;  // as stored
};

/// Writes a file beside its name, syncs it and renames it. Throws Error; nothing is left behind then.
void write_safetensors(const std::filesystem::path& file, std::span<const SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata);

}  // namespace routescope
