// routing.h5: its structure through the library, its bytes as they are, its journal.
#include <string>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/journal/journal.h"
#include "data/records/inspect.h"
#include "data/records/routing_record.h"
#include "data/records/routing_view.h"
#include "tests/data/records/routing_fixture.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/hdf5_edits.h"

namespace {

using namespace routescope;

struct Whole {
  std::string record, journal, without_checksums;
};

Whole make_whole() {
  const data::RoutingRecordInfo info = data::small_info();
  const std::filesystem::path file = fuzz::scratch_directory() / "whole.h5";
  {
    data::RoutingRecord record = data::RoutingRecord::create(file, info);
    for (std::int64_t step = 1; step <= 8; ++step) data::record_step(record, step, info);
    record.flush(true);
  }
  Whole out{data::read_text(file), data::read_text(data::journal_name(file)), ""};
  {
    data::hdf5::File older = data::hdf5::File::open_writable(file);
    for (const char* checksum : {"crc32", "alpha_crc32", "train/crc32", "valid/crc32"}) older.remove(checksum);
    H5Adelete(older.id(), "fixed_crc32");
    older.close();
  }
  out.without_checksums = data::read_text(file);
  return out;
}

void read_all(const std::filesystem::path& file) {
  const data::RoutingRecordView view = data::RoutingRecordView::load(file);
  const auto& info = view.info;
  const std::size_t reads = info.reads.size(), sources = info.sources.size();
  for (const data::RoutingSnapshot& row : view.snapshots) {
    if (row.alpha_mean.size() != reads * sources || row.alpha_entropy.size() != reads)
      fuzz::found("a row of another size than its axes");
  }
  if (static_cast<std::int64_t>(info.probe_tokens.size()) != info.sequences * info.positions)
    fuzz::found("tokens of another shape than their axes");
  for (std::size_t i = 0; i < std::min<std::size_t>(view.alpha_steps.size(), 3); ++i)
    data::RoutingRecordView::load_alpha(file, static_cast<std::int64_t>(i));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Whole whole = make_whole();
  fuzz::Script script(data, size);
  const std::uint8_t kind = script.next();
  // Changed bytes of the file or of its journal. (Without a journal HDF5 waits 2 s for each piece of structure that has
  // a wrong checksum; the values of datasets are changed by scripts.)
  const bool journaled = kind % 16 < 2;
  std::string record = kind % 2 == 0 ? whole.without_checksums : whole.record, journal = whole.journal;
  std::string& bytes = kind % 16 == 1 ? journal : record;
  while (journaled && !script.empty()) {
    const std::size_t at = (static_cast<std::size_t>(script.next()) << 16U | script.below(1U << 16U)) % bytes.size();
    bytes[at] = static_cast<char>(script.next());
  }
  const std::filesystem::path file = fuzz::scratch_file("routing.h5", record);
  if (!journaled && !fuzz::edit_hdf5(file, script)) return 0;
  const std::filesystem::path beside = data::journal_name(file);
  if (journaled)
    fuzz::scratch_file(beside.filename().string(), journal);
  else
    std::filesystem::remove(beside);
  fuzz::parse([&] { read_all(file); });
  if (!journaled) fuzz::parse([&] { data::inspect(file); });
  if (kind >= 224) {
    const std::filesystem::path output = fuzz::scratch_directory() / "salvaged.h5";
    fuzz::parse([&] { data::salvage(file, output); });
    std::filesystem::remove(output);
    std::filesystem::remove(data::journal_name(output));
  }
  return 0;
}
