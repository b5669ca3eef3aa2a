#include "data/records/routing_view.h"

#include <algorithm>

#include "data/base/error.h"
#include "data/records/routing_table.h"

namespace routescope::data {

namespace {

using hdf5::File;
using routing_format::Table;
using routing_format::TableReader;

void expect_later(const hdf5::Dataset& steps, std::int64_t step, std::int64_t before) {
  if (step <= before) throw Error("{}: found step {} after {}, expected a later one", steps.where(), step, before);
}

/// All rows of a table; every one must be intact. `fields` are those of the table's columns.
template <class Row>
std::vector<Row> read_rows(Table table, bool journaled, const std::vector<RowField<Row>>& fields) {
  TableReader reader(std::move(table), journaled);
  std::vector<Row> out(reader.steps().size());
  const routing_format::RowBlock block = reader.read(0, std::ssize(out));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (block.intact[i] == 0) {
      throw Error("{}: row {} does not fit its checksum: rows of steps after {} are damaged (routescope-data salvage)",
                  reader.table().checksum->where(), i,
                  std::max<std::int64_t>(reader.step_before(static_cast<std::int64_t>(i)), 0));
    }
    out[i].step = reader.steps()[i];
    expect_later(reader.table().step, out[i].step, i == 0 ? -1 : out[i - 1].step);
    for (std::size_t c = 0; c < fields.size(); ++c)
      fields[c].set(out[i], from_bytes(fields[c].type, routing_format::row_of(block.columns[c], i, out.size())));
  }
  return out;
}

}  // namespace

RoutingRecordView RoutingRecordView::load(const std::filesystem::path& name) {
  RoutingRecordView out;
  routing_format::with_record(name, [&](const File& file, bool journaled) {
    out.info = routing_format::read_info(file);
    routing_format::Tables tables(file);
    out.snapshots = read_rows(std::move(tables.snapshot), journaled, snapshot_fields());
    out.alpha_steps = tables.alpha.step.read<std::int64_t>();
    for (std::size_t i = 0; i < out.alpha_steps.size(); ++i)
      expect_later(tables.alpha.step, out.alpha_steps[i], i == 0 ? -1 : out.alpha_steps[i - 1]);
    out.train = read_rows(std::move(tables.train), journaled, train_fields());
    out.valid = read_rows(std::move(tables.valid), journaled, valid_fields());
  });
  return out;
}

std::vector<float> RoutingRecordView::load_alpha(const std::filesystem::path& name, std::int64_t index) {
  std::vector<float> out;
  routing_format::with_record(name, [&](const File& file, bool) {
    out = routing_format::Tables(file).alpha.columns.front()->read_rows<float>(index, 1);
  });
  return out;
}

}  // namespace routescope::data
