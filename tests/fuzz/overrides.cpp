// Overrides of a configuration: each line of the input is one.
#include <sstream>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "train/config/config.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  const char* base =
      "run: {dir: r}\ndata: {train: t.bin, valid: v.bin}\nmodel: {preset: qwen3_0.6b}\ntrain: {steps: 9}\n";
  std::istringstream lines{std::string(fuzz::text_of(data, size))};
  std::vector<std::string> overrides;
  for (std::string line; std::getline(lines, line);) overrides.push_back(line);
  return fuzz::parse([&] { train::parse_config(base, "f", overrides); });
}
