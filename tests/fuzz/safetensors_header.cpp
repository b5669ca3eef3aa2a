// A safetensors file: the length of its header, and the header.
#include "model/files/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const std::string_view bytes = fuzz::text_of(data, size);
    const std::uint64_t length = model::safetensors_header_length(bytes, size, "f");
    const model::SafetensorsHeader header =
        model::parse_safetensors_header(bytes.substr(8, length), size - 8 - length, "f");
    std::uint64_t end = 0;
    for (const model::SafetensorsEntry& entry : header.entries) {
      std::uint64_t elements = 1;
      for (const std::int64_t extent : entry.shape) elements *= static_cast<std::uint64_t>(extent);
      if (entry.begin != end || entry.end - entry.begin != elements * kernels::size_of(entry.dtype))
        fuzz::found("a range that does not fit its shape");
      end = entry.end;
    }
    if (end != size - 8 - length) fuzz::found("ranges that do not fill the file");
  });
}
