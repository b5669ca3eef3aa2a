#include "model/files/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

namespace routescope::model {

using nlohmann::json;

namespace {

kernels::DType dtype_from(const std::string& name, const std::string& where) {
  if (name == "F64") return kernels::DType::f64;
  if (name == "F32") return kernels::DType::f32;
  if (name == "BF16") return kernels::DType::bf16;
  throw data::Error("{}: dtype: found {}, expected F64, F32 or BF16", where, name);
}

const char* name_of(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::f64:
      return "F64";
    case kernels::DType::f32:
      return "F32";
    case kernels::DType::bf16:
      return "BF16";
    case kernels::DType::i32:
      return "I32";
  }
  return "";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The header's own numbers, trusted with nothing: each is checked against the others and against the file's size.
SafetensorsEntry parse_entry(const std::string& name, const json& object, std::uint64_t data_size,
                             const std::string& where) {
  if (!object.is_object() || !object.contains("dtype") || !object.contains("shape") || !object.contains("data_offsets"))
    throw data::Error("{}: expected an object with dtype, shape and data_offsets", where);
  const json &dtype = object["dtype"], &shape = object["shape"], &offsets = object["data_offsets"];
  if (!dtype.is_string()) throw data::Error("{}: dtype: found {}, expected a string", where, dtype.dump());
  SafetensorsEntry entry;
  entry.name = name;
  entry.dtype = dtype_from(dtype.get<std::string>(), where);
  if (!shape.is_array()) throw data::Error("{}: shape: found {}, expected an array", where, shape.dump());
  std::uint64_t bytes = kernels::size_of(entry.dtype);
  for (const json& extent : shape) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > (std::uint64_t{1} << 40))
      throw data::Error("{}: shape: found {}, expected non-negative integers", where, shape.dump());
    const auto value = extent.get<std::uint64_t>();
    if (value != 0 && bytes > (std::uint64_t{1} << 62) / value)
      throw data::Error("{}: shape: {} overflows", where, shape.dump());
    bytes *= value;
    entry.shape.push_back(static_cast<std::int64_t>(value));
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    throw data::Error("{}: data_offsets: found {}, expected two non-negative integers", where, offsets.dump());
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  if (entry.begin > entry.end || entry.end > data_size)
    throw data::Error("{}: data_offsets: found [{}, {}], expected a range within the {} bytes of data", where,
                      entry.begin, entry.end, data_size);
  if (entry.end - entry.begin != bytes)
    throw data::Error("{}: data_offsets: found {} bytes, expected {} for {} {}", where, entry.end - entry.begin, bytes,
                      name_of(entry.dtype), shape_text(entry.shape));
  return entry;
}

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

constexpr std::int64_t kChunk = 1 << 20;  // elements that are converted at once

struct FileDescriptor {
  int fd;
  explicit FileDescriptor(const std::filesystem::path& file) : fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) throw data::Error("{}: {}", file.string(), std::strerror(errno));
  }
  ~FileDescriptor() { ::close(fd); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
};

}  // namespace

SafetensorsReader::SafetensorsReader(const std::filesystem::path& file) : file_(file) {
  const std::string where = file.string();
  const FileDescriptor descriptor(file);
  struct stat status {};
  if (::fstat(descriptor.fd, &status) != 0) throw data::Error("{}: {}", where, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw data::Error("{}: expected a regular file", where);
  map_size_ = static_cast<std::size_t>(status.st_size);
  if (map_size_ < 8)
    throw data::Error("{}: found {} bytes, expected at least the 8 of a safetensors header length", where, map_size_);
  void* map = ::mmap(nullptr, map_size_, PROT_READ, MAP_PRIVATE, descriptor.fd, 0);
  if (map == MAP_FAILED) throw data::Error("{}: mmap: {}", where, std::strerror(errno));
  map_ = static_cast<const std::byte*>(map);

  // From here on the destructor does not run if something throws, so the map is dropped by hand.
  try {
    std::uint64_t header_size = 0;
    std::memcpy(&header_size, map_, 8);
    if (header_size > map_size_ - 8)
      throw data::Error(
          "{}: offset 0: header length {}, expected at most the {} bytes that follow (truncated, or not safetensors)",
          where, header_size, map_size_ - 8);
    data_start_ = 8 + static_cast<std::size_t>(header_size);
    const std::uint64_t data_size = map_size_ - data_start_;
    const char* text = reinterpret_cast<const char*>(map_) + 8;
    json header;
    try {
      header = json::parse(text, text + header_size);
    } catch (const json::exception&) {
      throw data::Error("{}: offset 8: the header is not valid JSON", where);
    }
    if (!header.is_object())
      throw data::Error("{}: offset 8: the header is {}, expected a JSON object", where, header.type_name());
    for (const auto& [name, object] : header.items()) {
      if (name == "__metadata__") {
        for (const auto& [key, value] : object.items())
          metadata_[key] = value.is_string() ? value.get<std::string>() : value.dump();
        continue;
      }
      entries_.push_back(parse_entry(name, object, data_size, where + ": " + name));
    }
    std::sort(entries_.begin(), entries_.end(),
              [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    std::uint64_t expected = 0;
    for (const SafetensorsEntry& entry : entries_) {
      if (entry.begin != expected)
        throw data::Error("{}: {}: data_offsets begin at {}, expected {} (tensors must neither overlap nor leave gaps)",
                          where, entry.name, entry.begin, expected);
      expected = entry.end;
    }
    if (expected != data_size)
      throw data::Error("{}: found {} bytes of data, expected {} by the header", where, data_size, expected);
  } catch (...) {
    ::munmap(map, map_size_);
    map_ = nullptr;
    throw;
  }
}

SafetensorsReader::~SafetensorsReader() {
  if (map_) ::munmap(const_cast<std::byte*>(map_), map_size_);
}

bool SafetensorsReader::contains(const std::string& name) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.name == name; });
}

const SafetensorsEntry& SafetensorsReader::entry(const std::string& name) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.name == name; });
  if (found == entries_.end())
    throw data::Error("{}: {}: absent, expected a tensor of this name", file_.string(), name);
  return *found;
}

void SafetensorsReader::read(const std::string& name, const std::vector<std::int64_t>& shape,
                             kernels::Tensor dst) const {
  const SafetensorsEntry& found = entry(name);
  if (found.shape != shape)
    throw data::Error("{}: {}: found shape {}, expected {}", file_.string(), name, shape_text(found.shape),
                      shape_text(shape));
  read_elements(name, 0, dst);
}

void SafetensorsReader::read_elements(const std::string& name, std::int64_t first, kernels::Tensor dst) const {
  const SafetensorsEntry& found = entry(name);
  const std::int64_t count = dst.numel(), stored = elements(found.shape);
  if (first < 0 || first + count > stored)
    throw data::Error("{}: {}: found {} elements, expected those from {} to {}", file_.string(), name, stored, first,
                      first + count);
  if (count == 0) return;
  // The container promises no alignment of its data, the operations want the element's own: read through a bounce
  // buffer.
  const std::byte* source =
      map_ + data_start_ + found.begin + static_cast<std::size_t>(first) * kernels::size_of(found.dtype);
  kernels::OwnedTensor bounce(found.dtype, kernels::Device::cpu, {std::min(count, kChunk)});
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t n = std::min(kChunk, count - begin);
    kernels::Tensor chunk = bounce.tensor.slice(0, {n});
    std::memcpy(chunk.data, source + static_cast<std::size_t>(begin) * kernels::size_of(found.dtype), chunk.bytes());
    kernels::cast(dst.slice(begin, {n}), chunk, kernels::Stream{});
  }
}

std::string safetensors_header(std::span<const SafetensorsItem> items,
                               const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const SafetensorsItem& item : items) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(elements(item.shape)) * kernels::size_of(item.dtype);
    header[item.name] = {
        {"dtype", name_of(item.dtype)}, {"shape", item.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data then start aligned to 8 bytes
  const std::uint64_t size = text.size();
  std::string out(sizeof size, '\0');
  std::memcpy(out.data(), &size, sizeof size);
  return out + text;
}

void stream_elements(kernels::Tensor data, kernels::DType dtype,
                     const std::function<void(const void*, std::size_t bytes)>& put) {
  const std::int64_t count = data.numel();
  const bool as_it_is = data.dtype == dtype && data.device == kernels::Device::cpu;
  kernels::OwnedTensor bounce;
  if (!as_it_is)
    bounce = kernels::OwnedTensor(dtype, kernels::Device::cpu, {std::min(std::max<std::int64_t>(count, 1), kChunk)});
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t n = std::min(kChunk, count - begin);
    kernels::Tensor chunk = data.slice(begin, {n});
    if (!as_it_is) {
      const kernels::Tensor converted = bounce.tensor.slice(0, {n});
      kernels::cast(converted, chunk, kernels::Stream{});
      chunk = converted;
    }
    put(chunk.data, chunk.bytes());
  }
}

void write_safetensors(const std::filesystem::path& file, std::span<const SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = safetensors_header(items, metadata);
  data::write_atomically(file, [&](const std::filesystem::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    const auto put = [&](const void* data, std::size_t bytes) {
      if (!out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes)))
        throw data::Error("{}: write failed: {}", file.string(), std::strerror(errno));
    };
    put(header.data(), header.size());
    for (const SafetensorsItem& item : items) stream_elements(item.data, item.dtype, put);
    out.close();
    if (!out) throw data::Error("{}: write failed: {}", file.string(), std::strerror(errno));
  });
}

}  // namespace routescope::model
