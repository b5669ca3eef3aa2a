// config.json, the plan and the layout of its model, and what is written of it.
#include <nlohmann/json.hpp>

#include "model/files/config.h"
#include "model/pass/parameters.h"
#include "model/pass/reads.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const auto config = model::ModelConfig::parse(std::string(fuzz::text_of(data, size)), "f");
    const std::string written = config.to_json().dump();
    if (model::ModelConfig::parse(written, "f").to_json().dump() != written) fuzz::found("is read back as another one");
    if (config.num_hidden_layers > 64) return;  // for speed
    if (const model::ParameterLayout layout(config); layout.total() < layout.count()) fuzz::found("an overflow");
    if (std::ssize(model::ReadPlan(config).reads) != 2 * config.num_hidden_layers + 1) fuzz::found("a wrong plan");
  });
}
