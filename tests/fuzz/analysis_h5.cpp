// analysis.h5, with what follows from its rows, and study.h5.
#include <string>

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"
#include "data/base/files.h"
#include "data/records/inspect.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/hdf5_edits.h"

namespace {

using namespace routescope;

std::string make_whole() {
  analysis::AnalysisRecord record = testing::filled_record();
  const std::filesystem::path file = fuzz::scratch_directory() / "whole.h5";
  save_record(record, file);
  return data::read_text(file);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string whole = make_whole();
  fuzz::Script script(data, size);
  const std::uint8_t kind = script.next();
  const std::filesystem::path file = fuzz::scratch_file("analysis.h5", whole);
  if (!fuzz::edit_hdf5(file, script)) return 0;
  fuzz::parse([&] { data::inspect(file); });
  return fuzz::parse([&] {
    const analysis::AnalysisRecord record = analysis::load_record(file);
    if (kind >= 240 && !record.rows.empty()) (void)find(record);
  });
}
