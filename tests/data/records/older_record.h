// A finished routing.h5 as version 1.1 wrote it: without the documents of its probe tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/hdf5/file.h"
#include "data/journal/journal.h"
#include "data/records/routing_file.h"
#include "data/records/routing_table.h"

namespace routescope::testing {

inline void make_version_1_1(const std::filesystem::path& path, const std::vector<std::int32_t>& probe_tokens) {
  std::filesystem::remove(data::journal_name(path));
  data::RoutingRecordInfo info = data::routing_format::read_info(data::hdf5::File::open(path));
  data::hdf5::File file = data::hdf5::File::open_writable(path);
  file.dataset("/probe_tokens").write_rows<std::int32_t>(0, probe_tokens);
  file.remove("/probe_document");
  file.set("version", std::vector<std::int64_t>{1, 1});
  data::routing_format::RowChecksum sum;
  for (const auto* labels : {&info.reads, &info.sublayer, &info.depth, &info.sources})
    for (const std::string& label : *labels) sum.add(label + '\n');
  sum.add(info.layer);
  sum.add(std::vector<std::int64_t>{info.hidden_size, info.sequences, info.positions});
  sum.add(probe_tokens);
  sum.add(info.config);
  sum.add(info.git_commit);
  file.set("fixed_crc32", sum.value());
  file.close();
}

}  // namespace routescope::testing
