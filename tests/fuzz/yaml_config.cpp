// A run's configuration as YAML, and what is written of it.
#include "tests/fuzz/fuzz.h"
#include "train/config/config.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const auto config = train::parse_config(std::string(fuzz::text_of(data, size)), "f", {});
    const std::string written = train::to_yaml(config);
    if (train::to_yaml(train::parse_config(written, "f", {})) != written) fuzz::found("is read back as another one");
  });
}
