// Structure for the targets of HDF5 files: their metadata has checksums, so changed bytes seldom get past HDF5. The
// bytes of these targets are a script of changes to a whole file instead: other types, shapes, links, attributes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace routescope::fuzz {

/// Bytes that are read one after the other; after the last, zeros.
class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t next() {
    if (bytes_.empty()) return 0;
    const std::uint8_t out = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return out;
  }
  std::uint32_t below(std::uint32_t bound) { return (static_cast<std::uint32_t>(next()) << 8U | next()) % bound; }
  std::string text() {
    std::string out;
    for (std::uint32_t i = below(24); i > 0; --i) out += static_cast<char>(next());
    return out;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

/// Changes a whole HDF5 file as the script says, through the library. Returns whether it could be changed.
bool edit_hdf5(const std::filesystem::path& file, Script& script);

}  // namespace routescope::fuzz
