#include "data/records/routing_record.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/chunks.h"
#include "data/hdf5/file.h"
#include "data/records/routing_copy.h"
#include "data/records/routing_file.h"
#include "data/records/routing_table.h"

namespace routescope::data {

namespace {

using hdf5::File;
using routing_format::Copied;
using routing_format::no_step;
using routing_format::RowChecksum;
using routing_format::Table;
using routing_format::Tables;

/// Rows of a table that wait in memory. flush() writes the table's columns, hands them to the operating system and only
/// then writes the steps: a reader, or a resumed run after a crash, finds whole rows or none.
template <class Row>
struct PendingRows {
  std::vector<RowField<Row>> fields;
  std::vector<Row> rows = {};
  std::int64_t last_step = no_step;
};

/// Adds a row to the table's columns, and its checksum. Returns its step, which is to be written later.
template <class Row>
std::int64_t write_row(Table& table, const std::vector<RowField<Row>>& fields, const Row& row) {
  RowChecksum sum;
  sum.add(row.step);
  for (std::size_t c = 0; c < fields.size(); ++c) {
    const std::vector<std::byte> bytes = to_bytes(fields[c].type, fields[c].get(row));
    sum.add_bytes(bytes);
    append_row_bytes(*table.columns[c], bytes, 1);
  }
  const std::int64_t value = sum.value();
  table.checksum->append(std::span(&value, 1));
  return row.step;
}

template <class T>
void expect_same(const std::string& file, const char* what, const T& found, const T& expected) {
  if (found != expected)
    throw Error("{}: {}: found another model or other probe tokens, expected those of this run", file, what);
}

void expect_same_record(const std::string& file, const RoutingRecordInfo& found, const RoutingRecordInfo& expected) {
  expect_same(file, "/read", found.reads, expected.reads);
  expect_same(file, "/layer", found.layer, expected.layer);
  expect_same(file, "/sublayer", found.sublayer, expected.sublayer);
  expect_same(file, "/depth", found.depth, expected.depth);
  expect_same(file, "/source", found.sources, expected.sources);
  expect_same(file, "/d", found.hidden_size, expected.hidden_size);
  expect_same(file, "/seq", found.sequences, expected.sequences);
  expect_same(file, "/pos", found.positions, expected.positions);
  expect_same(file, "/probe_tokens", found.probe_tokens, expected.probe_tokens);
  expect_same(file, "/probe_document", found.probe_documents, expected.probe_documents);
}

}  // namespace

RecordDamaged::RecordDamaged(const std::filesystem::path& file, std::int64_t intact, std::int64_t wanted,
                             const std::string& what)
    : Error(
          "{0}: intact {1}, expected up to step {2}: {3}; nothing was changed ({4}`routescope-data salvage {0} "
          "--output NEW` writes the intact rows; with NEW and NEW.journal in place of this record and its journal the "
          "run goes on without the lost rows)",
          file.string(), intact < 0 ? "in no step" : fmt::format("up to step {}", intact), wanted, what,
          intact < 0
              ? ""
              : fmt::format("a checkpoint of step {} or before can be resumed: move the later ones away; ", intact)),
      intact_step(intact) {}

struct RoutingRecord::Impl {
  std::filesystem::path name;
  File file;
  std::optional<Tables> tables;
  std::int64_t alpha_row = 0;  // values of a row of /alpha
  PendingRows<RoutingSnapshot> snapshots{snapshot_fields()};
  PendingRows<TrainRow> train{train_fields()};
  PendingRows<ValidRow> valid{valid_fields()};
  std::int64_t last_alpha = no_step;
  bool failed = false;

  Impl(std::filesystem::path name_, const RoutingRecordInfo& info)
      : name(std::move(name_)),
        alpha_row(std::ssize(info.reads) * info.sequences * info.positions * std::ssize(info.sources)) {}

  ~Impl() {
    tables.reset();
    if (failed) return;
    try {
      file.close();
    } catch (const std::exception& error) {
      spdlog::error("{}", error.what());
    }
  }

  // After a failed write nothing more reaches the file (FileState::give_up): every later call is an error.
  template <class Body>
  void guarded(Body body) {
    if (failed) throw Error("{}: cannot go on after a failed write", name.string());
    try {
      body();
    } catch (...) {
      failed = true;
      throw;
    }
  }

  void continue_after(const Copied& copied) {
    snapshots.last_step = copied.last[0];
    last_alpha = copied.last[1];
    train.last_step = copied.last[2];
    valid.last_step = copied.last[3];
  }

  void expect_row(const std::string& what, std::size_t found, std::int64_t expected) const {
    if (static_cast<std::int64_t>(found) != expected)
      throw Error("{}: {}: found a row of {} values, expected {}", name.string(), what, found, expected);
  }
  void expect_later(const std::string& what, std::int64_t step, std::int64_t& last) const {
    if (step <= last)
      throw Error("{}: {}: found step {} after step {}, expected a later one", name.string(), what, step, last);
    last = step;
  }

  template <class Row>
  void add(PendingRows<Row>& pending, const Table& table, const Row& row) const {
    for (std::size_t c = 0; c < pending.fields.size(); ++c)
      expect_row(pending.fields[c].path, pending.fields[c].get(row).size(), table.row_values[c]);
    expect_later(table.fields->step.path, row.step, pending.last_step);
    pending.rows.push_back(row);
  }

  template <class Row>
  void write(PendingRows<Row>& pending, Table& table) {
    if (pending.rows.empty()) return;
    std::vector<std::int64_t> steps;
    for (const Row& row : pending.rows) steps.push_back(write_row(table, pending.fields, row));
    table.append_steps(file, steps);
    pending.rows.clear();
  }
};

RoutingRecord::RoutingRecord(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RoutingRecord::RoutingRecord(RoutingRecord&&) noexcept = default;
RoutingRecord& RoutingRecord::operator=(RoutingRecord&&) noexcept = default;

RoutingRecord::~RoutingRecord() {
  if (!impl_ || impl_->failed) return;
  try {
    flush();
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
  }
}

RoutingRecord RoutingRecord::start(const std::filesystem::path& file, const RoutingRecordInfo& info,
                                   const std::string& created, const std::function<void(Impl&)>& fill) {
  Unfinished partial(file);
  auto impl = std::make_unique<Impl>(file, info);
  try {
    impl->file = File::create_for_swmr(partial.path());
    impl->guarded([&] {
      const JournalMark mark = routing_format::create(impl->file, info, created);
      impl->tables.emplace(impl->file);
      fill(*impl);
      impl->file.start_swmr();
      impl->file.flush();
      // A moment without the right journal: the file is whole, and nobody is writing it.
      partial.publish();
      impl->file.publish_journal(journal_name(file), mark);
    });
  } catch (...) {
    impl.reset();
    throw;
  }
  return RoutingRecord(std::move(impl));
}

RoutingRecord RoutingRecord::create(const std::filesystem::path& file, const RoutingRecordInfo& info) {
  if (std::filesystem::exists(file)) throw Error("{}: exists already, expected to create it", file.string());
  return start(file, info, "", [](Impl&) {});
}

RoutingRecord RoutingRecord::resume(const std::filesystem::path& file, const RoutingRecordInfo& info,
                                    std::int64_t step) {
  if (!std::filesystem::exists(file))
    throw Error(
        "{}: no such file, expected the record of {} steps (from a copy; or move the checkpoints away to begin "
        "again)",
        file.string(), step);
  std::optional<RoutingRecord> out;
  routing_format::with_record(file, [&](const File& old, bool journaled) {
    expect_same_record(file.string(), routing_format::read_info(old), info);
    out = start(file, info, old.text("created"), [&](Impl& impl) {
      const Copied copied = routing_format::copy_rows(old, journaled, impl.file, *impl.tables, step, false);
      const std::int64_t last = std::max<std::int64_t>(copied.last[2], 0);
      const bool salvaged = old.has(routing_format::salvaged);
      if (!copied.damage.empty()) throw RecordDamaged(file, copied.intact_step, step, copied.damage);
      if (last < step && !salvaged)
        throw RecordDamaged(file, last, step, fmt::format("/train/step: the last row until then is of step {}", last));
      if (salvaged) impl.file.set(routing_format::salvaged, old.integer(routing_format::salvaged));
      impl.continue_after(copied);
    });
  });
  return std::move(*out);
}

void RoutingRecord::append(const RoutingSnapshot& row) {
  impl_->add(impl_->snapshots, impl_->tables->snapshot, row);
}

void RoutingRecord::append_alpha(std::int64_t step, std::span<const float> alpha) {
  Impl& impl = *impl_;
  impl.expect_row("/alpha", alpha.size(), impl.alpha_row);
  impl.expect_later("/alpha_step", step, impl.last_alpha);
  std::vector<hdf5::half> narrow(alpha.size());
  std::transform(alpha.begin(), alpha.end(), narrow.begin(), hdf5::to_half);
  // Too large to wait in memory for flush().
  impl.guarded([&] {
    Table& table = impl.tables->alpha;
    hdf5::Dataset& column = *table.columns[0];
    column.append(std::span<const hdf5::half>(narrow));
    column.flush();
    const std::int64_t sum = routing_format::alpha_checksum(column, column.rows() - 1, step);
    table.checksum->append(std::span(&sum, 1));
    table.append_steps(impl.file, std::span<const std::int64_t>(&step, 1));
  });
}

void RoutingRecord::append(const TrainRow& row) {
  impl_->add(impl_->train, impl_->tables->train, row);
}

void RoutingRecord::append(const ValidRow& row) {
  impl_->add(impl_->valid, impl_->tables->valid, row);
}

void RoutingRecord::flush(bool sync) {
  Impl& impl = *impl_;
  impl.guarded([&] {
    impl.write(impl.snapshots, impl.tables->snapshot);
    impl.write(impl.train, impl.tables->train);
    impl.write(impl.valid, impl.tables->valid);
    if (sync) impl.file.sync(impl.name);
  });
}

std::string salvage(const std::filesystem::path& file, const std::filesystem::path& output) {
  if (std::filesystem::exists(output)) throw Error("{}: exists already, expected to create it", output.string());
  std::string out;
  routing_format::with_record(file, [&](const File& old, bool journaled) {
    out.clear();  // a second attempt, on another view of the file
    const RoutingRecordInfo info = routing_format::read_info(old);
    RoutingRecord::start(output, info, old.text("created"), [&](RoutingRecord::Impl& impl) {
      constexpr std::int64_t all_steps = std::numeric_limits<std::int64_t>::max();
      const Copied copied = routing_format::copy_rows(old, journaled, impl.file, *impl.tables, all_steps, true);
      const std::int64_t lost = std::reduce(copied.lost.begin(), copied.lost.end());
      impl.file.set(routing_format::salvaged, lost);
      const std::array<const char*, 4> names{"snapshots", "per-token rows", "training rows", "validation rows"};
      for (std::size_t t = 0; t < names.size(); ++t) out += fmt::format("{} {}, ", copied.rows[t], names[t]);
      out +=
          lost == 0 ? "nothing lost" : fmt::format("{} rows lost, the first after step {}", lost, copied.intact_step);
      impl.continue_after(copied);
    });
  });
  return out;
}

}  // namespace routescope::data
