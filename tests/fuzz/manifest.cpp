// MANIFEST.json of a checkpoint.
#include "data/base/manifest.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    for (const auto& entry : data::parse_manifest(std::string(fuzz::text_of(data, size)), "f"))
      if (std::filesystem::path(entry.name).filename() != entry.name) fuzz::found("a file elsewhere: " + entry.name);
  });
}
