// model.safetensors.index.json.
#include "model/files/weights.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const auto files = model::parse_weight_index(std::string(fuzz::text_of(data, size)), "f");
    for (const auto& [tensor, file] : files)
      if (std::filesystem::path(file).filename() != file || file == "..") fuzz::found("a file elsewhere: " + file);
  });
}
