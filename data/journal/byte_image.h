// Known bytes of a file, by address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace routescope::data {

class ByteImage {
 public:
  /// Later bytes replace earlier ones.
  void write(std::int64_t address, std::span<const std::byte> bytes);
  /// Overwrites the known ones of the bytes `out` at `address`.
  void patch(std::int64_t address, std::span<std::byte> out) const;
  /// One past the last known byte, or 0.
  std::int64_t end() const;
  std::int64_t size() const { return size_; }  // bytes that are known
  /// Address and bytes; pieces do not overlap.
  const std::map<std::int64_t, std::vector<std::byte>>& pieces() const { return pieces_; }

 private:
  std::map<std::int64_t, std::vector<std::byte>> pieces_;
  std::int64_t size_ = 0;
};

}  // namespace routescope::data
