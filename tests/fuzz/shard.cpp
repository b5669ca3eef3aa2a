// A token shard.
#include "data/tokens/shard.h"

#include <vector>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const data::Shard shard(fuzz::scratch_file("shard.bin", fuzz::text_of(data, size)));
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(shard.size()));
    shard.read(0, tokens);
    if (shard.size() > 0 && shard.largest_id() < 0) fuzz::found("a negative id");
  });
}
