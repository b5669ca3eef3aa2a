#include "data/hdf5/heap.h"

#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "data/base/error.h"

namespace routescope::data::hdf5 {

namespace {

// Bytes that are searched: our files hold texts as labels and attributes, which are written first.
constexpr std::size_t kSearched = 1 << 20;
constexpr std::size_t kHead = 16;  // of a heap: "GCOL", version, 3 bytes, size; of an object in it: numbers, size

std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint64_t out = 0;
  std::memcpy(&out, bytes.data() + at, count);
  return out;
}

// Whether the objects of a heap lie one after the other and fill it. The last, number 0, is the free space.
bool is_whole(std::string_view heap) {
  std::size_t at = kHead;
  std::vector<bool> taken(1 << 16);
  while (heap.size() - at >= kHead) {
    const std::uint64_t index = number(heap, at, 2), size = number(heap, at + 8, 8);
    if (index == 0) return size == heap.size() - at;
    if (taken[index] || number(heap, at + 4, 4) != 0 || size > heap.size() - at - kHead) return false;
    taken[index] = true;
    at += kHead + (size + 7) / 8 * 8;
    if (at > heap.size()) return false;
  }
  return true;
}

}  // namespace

void check_texts(const std::filesystem::path& file) {
  std::error_code unknown;
  const std::uintmax_t length = std::filesystem::file_size(file, unknown);
  std::ifstream in(file, std::ios::binary);
  std::string bytes(kSearched, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  const std::string_view all(bytes), mark("GCOL\1\0\0\0", 8);
  for (std::size_t at = all.find(mark); at != std::string_view::npos; at = all.find(mark, at + 1)) {
    if (all.size() - at < kHead) return;
    const std::uint64_t size = number(all, at + 8, 8);
    if (size < kHead || size > length || (size <= all.size() - at && !is_whole(all.substr(at, size))))
      throw Error("{}: the heap of texts at byte {} is damaged", file.string(), at);
  }
}

}  // namespace routescope::data::hdf5
