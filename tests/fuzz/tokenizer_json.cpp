// tokenizer.json, for the texts of tokens.
#include "analysis/report/token_text.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const auto text = analysis::TokenText::parse(std::string(fuzz::text_of(data, size)), "f");
    for (const std::int64_t id : {-1, 0, 1, 2, 1 << 30})
      if (text(id).size() > 4 * size + 64) fuzz::found("a token longer than its file");
  });
}
