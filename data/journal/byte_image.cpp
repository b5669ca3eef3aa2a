#include "data/journal/byte_image.h"

#include <algorithm>

namespace routescope::data {

namespace {

std::int64_t end_of(const std::pair<const std::int64_t, std::vector<std::byte>>& piece) {
  return piece.first + static_cast<std::int64_t>(piece.second.size());
}

}  // namespace

void ByteImage::write(std::int64_t address, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::int64_t end = address + static_cast<std::int64_t>(bytes.size());
  auto first = pieces_.upper_bound(address);
  if (first != pieces_.begin() && end_of(*std::prev(first)) > address) --first;
  // One piece holds all of it, as when an object is written again.
  if (first != pieces_.end() && first->first <= address && end_of(*first) >= end) {
    std::copy(bytes.begin(), bytes.end(), first->second.begin() + (address - first->first));
    return;
  }
  // Otherwise the pieces that it meets become one.
  std::int64_t from = address, to = end;
  auto last = first;
  for (; last != pieces_.end() && last->first < end; ++last) {
    from = std::min(from, last->first);
    to = std::max(to, end_of(*last));
  }
  std::vector<std::byte> whole(static_cast<std::size_t>(to - from));
  for (auto piece = first; piece != last; ++piece) {
    std::copy(piece->second.begin(), piece->second.end(), whole.begin() + (piece->first - from));
    size_ -= static_cast<std::int64_t>(piece->second.size());
  }
  std::copy(bytes.begin(), bytes.end(), whole.begin() + (address - from));
  size_ += to - from;
  pieces_.erase(first, last);
  pieces_.emplace(from, std::move(whole));
}

void ByteImage::patch(std::int64_t address, std::span<std::byte> out) const {
  const std::int64_t end = address + static_cast<std::int64_t>(out.size());
  auto piece = pieces_.upper_bound(address);
  if (piece != pieces_.begin()) --piece;
  for (; piece != pieces_.end() && piece->first < end; ++piece) {
    const std::int64_t from = std::max(address, piece->first), to = std::min(end, end_of(*piece));
    if (from >= to) continue;
    std::copy(piece->second.begin() + (from - piece->first), piece->second.begin() + (to - piece->first),
              out.begin() + (from - address));
  }
}

std::int64_t ByteImage::end() const {
  return pieces_.empty() ? 0 : end_of(*pieces_.rbegin());
}

}  // namespace routescope::data
