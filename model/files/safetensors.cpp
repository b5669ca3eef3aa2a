#include "model/files/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"
#include "kernels/bf16.h"
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
    throw data::Error("{}: found {}, expected an object with dtype, shape and data_offsets", where,
                      data::excerpt(object));
  SafetensorsEntry entry;
  entry.name = name;
  entry.dtype = dtype_from(data::json_member<std::string>(object, "dtype", where), where);
  const json& shape = object["shape"];
  std::uint64_t bytes = kernels::size_of(entry.dtype);
  for (const json& extent : data::json_value<std::vector<json>>(shape, where + ": shape")) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > (std::uint64_t{1} << 40))
      throw data::Error("{}: shape: found {}, expected integers from 0 to 2^40", where, data::excerpt(shape));
    const auto value = extent.get<std::uint64_t>();
    if (value != 0 && bytes > (std::uint64_t{1} << 62) / value)
      throw data::Error("{}: shape: {} overflows", where, data::excerpt(shape));
    bytes *= value;
    entry.shape.push_back(static_cast<std::int64_t>(value));
  }
  const auto offsets = data::json_member<std::vector<std::uint64_t>>(object, "data_offsets", where);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_size)
    throw data::Error("{}: data_offsets: found {}, expected a range within the {} bytes of data", where,
                      data::excerpt(object["data_offsets"]), data_size);
  entry.begin = offsets[0];
  entry.end = offsets[1];
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

/// The first element that is not finite in f32 or, if `wide`, in f64; -1: there is none.
std::int64_t first_not_finite(const kernels::Tensor& piece, bool wide) {
  const auto find = [&](const auto* values, auto is_bad) {
    const auto* end = values + piece.numel();
    const auto* found = std::find_if(values, end, is_bad);
    return found == end ? -1 : found - values;
  };
  if (piece.dtype == kernels::DType::bf16)
    return find(piece.as<kernels::bf16>(), [](kernels::bf16 x) { return (x.bits & 0x7f80) == 0x7f80; });
  if (piece.dtype == kernels::DType::f32) return find(piece.as<float>(), [](float x) { return !std::isfinite(x); });
  const double largest = wide ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  return find(piece.as<double>(), [largest](double x) { return !(std::abs(x) <= largest); });
}

}  // namespace

std::uint64_t safetensors_header_length(std::string_view first_bytes, std::uint64_t file_size,
                                        const std::string& where) {
  constexpr std::uint64_t kMost = 100'000'000;  // as in the safetensors library
  std::uint64_t length = 0;
  if (first_bytes.size() < sizeof length || file_size < sizeof length)
    throw data::Error("{}: found {} bytes, expected at least the 8 of a safetensors header length", where, file_size);
  std::memcpy(&length, first_bytes.data(), sizeof length);
  if (const std::uint64_t most = std::min(file_size - sizeof length, kMost); length > most)
    throw data::Error("{}: offset 0: header length {}, expected at most {} (truncated, or not safetensors)", where,
                      length, most);
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_size, const std::string& where) {
  const json parsed = data::parse_json(text, where + ": header");
  if (!parsed.is_object())
    throw data::Error("{}: header: found {}, expected a JSON object", where, data::excerpt(parsed));
  SafetensorsHeader header;
  for (const auto& [name, object] : parsed.items()) {
    if (name != "__metadata__") {
      header.entries.push_back(parse_entry(name, object, data_size, where + ": " + data::shortened(name)));
      continue;
    }
    if (!object.is_object())
      throw data::Error("{}: __metadata__: found {}, expected an object", where, data::excerpt(object));
    for (const auto& [key, value] : object.items())
      header.metadata[key] = data::json_value<std::string>(value, where + ": __metadata__: " + data::shortened(key));
  }
  std::ranges::sort(header.entries, {}, [](const auto& entry) { return std::pair(entry.begin, entry.end); });
  std::uint64_t expected = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin != expected)
      throw data::Error("{}: {}: data_offsets begin at {}, expected {} (tensors must neither overlap nor leave gaps)",
                        where, data::shortened(entry.name), entry.begin, expected);
    expected = entry.end;
  }
  if (expected != data_size)
    throw data::Error("{}: found {} bytes of data, expected {} by the header", where, data_size, expected);
  return header;
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& file)
    : SafetensorsReader(data::open_regular(file), file) {}

SafetensorsReader::SafetensorsReader(data::FileDescriptor descriptor, const std::filesystem::path& file)
    : file_(file), descriptor_(std::move(descriptor)) {
  const std::string where = file.string();
  struct stat status {};
  if (::fstat(descriptor_.get(), &status) != 0) throw data::Error("{}: {}", where, std::strerror(errno));
  const auto size = static_cast<std::uint64_t>(status.st_size);
  std::string text(std::min<std::uint64_t>(size, 8), '\0');
  read_bytes(text.data(), text.size(), 0);
  const std::uint64_t length = safetensors_header_length(text, size, where);
  text.resize(length);
  read_bytes(text.data(), length, 8);
  data_start_ = 8 + length;
  header_ = parse_safetensors_header(text, size - data_start_, where);
  for (std::size_t i = 0; i < header_.entries.size(); ++i) places_[header_.entries[i].name] = i;
}

void SafetensorsReader::read_bytes(void* to, std::size_t count, std::uint64_t offset) const {
  auto* next = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor_.get(), next, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw data::Error("{}: offset {}: cannot read: {}", file_.string(), offset, std::strerror(errno));
    if (got == 0)
      throw data::Error("{}: offset {}: found the end, expected {} bytes more (the file shrank)", file_.string(),
                        offset, count);
    next += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

const SafetensorsEntry& SafetensorsReader::entry(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw data::Error("{}: {}: absent, expected a tensor of this name", file_.string(), name);
  return header_.entries[found->second];
}

void SafetensorsReader::expect_shape(const std::string& name, const std::vector<std::int64_t>& shape) const {
  if (const SafetensorsEntry& found = entry(name); found.shape != shape)
    throw data::Error("{}: {}: found shape {}, expected {}", file_.string(), name, shape_text(found.shape),
                      shape_text(shape));
}

void SafetensorsReader::read(const std::string& name, const std::vector<std::int64_t>& shape,
                             kernels::Tensor dst) const {
  expect_shape(name, shape);
  read_pieces(entry(name), 0, dst, true);
}

void SafetensorsReader::read_elements(const std::string& name, std::int64_t first, kernels::Tensor dst) const {
  const SafetensorsEntry& found = entry(name);
  const std::int64_t count = dst.numel(), stored = elements(found.shape);
  if (first < 0 || count > stored - first)
    throw data::Error("{}: {}: found {} elements, expected those from {} to {}", file_.string(), name, stored, first,
                      first + count);
  read_pieces(found, first, dst, false);
}

void SafetensorsReader::read_pieces(const SafetensorsEntry& entry, std::int64_t first, kernels::Tensor dst,
                                    bool finite) const {
  const std::int64_t count = dst.numel();
  if (count == 0) return;
  kernels::OwnedTensor bounce(entry.dtype, kernels::Device::cpu, {std::min(count, kChunk)});
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t n = std::min(kChunk, count - begin);
    const kernels::Tensor piece = bounce.tensor.slice(0, {n});
    const auto at = static_cast<std::uint64_t>(first + begin) * kernels::size_of(entry.dtype);
    read_bytes(piece.data, piece.bytes(), data_start_ + entry.begin + at);
    const std::int64_t bad = finite ? first_not_finite(piece, dst.dtype == kernels::DType::f64) : -1;
    if (bad >= 0)
      throw data::Error("{}: {}: element {} is not finite, or too large for f32, expected a number", file_.string(),
                        entry.name, first + begin + bad);
    kernels::cast(dst.slice(begin, {n}), piece, kernels::Stream{});
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
  for (const SafetensorsItem& item : items) {
    if (item.dtype != kernels::DType::bf16 || item.data.dtype != kernels::DType::f32) continue;
    // From here on a finite number would be rounded to infinity.
    const auto overflows = [](float value) { return std::isfinite(value) && std::fabs(value) >= 0x1.FFp127F; };
    if (std::ranges::any_of(item.data.span<float>(), overflows))
      throw data::Error("{}: {}: found a number beyond 3.39e38, expected numbers that bf16 holds", file.string(),
                        item.name);
  }
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
