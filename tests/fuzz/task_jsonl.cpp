// Task files.
#include "analysis/results/task_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace routescope;
  return fuzz::parse([&] {
    const analysis::Task task = analysis::parse_task(fuzz::text_of(data, size), "f", 257);
    const auto tokens = static_cast<std::size_t>(task.run.sequences * task.run.positions);
    if (task.run.ids.size() != tokens || (task.donors.sequences > 0 && task.donors.ids.size() != tokens))
      fuzz::found("prompts of other lengths than are said");
    std::int64_t scored = 0;
    for (const std::int32_t target : task.run.targets(0, task.run.sequences)) scored += target >= 0;
    if (scored != task.run.sequences) fuzz::found("not one answer for each prompt");
  });
}
