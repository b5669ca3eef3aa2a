// The writer of routing.h5. Rows wait in memory until flush(), which writes a table's columns, hands them to the
// operating system and only then writes the steps: a reader or a crash in between sees whole rows or none.
#include "data/routing_record.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "data/error.h"
#include "data/files.h"
#include "data/hdf5.h"
#include "data/routing_format.h"

namespace routescope {

namespace {

using hdf5::Dataset;
using hdf5::File;
using routing_format::Table;
using routing_format::Tables;

constexpr std::int64_t no_step = std::numeric_limits<std::int64_t>::min();

template <class T>
void append_value(Dataset& column, T value) {
  column.append(std::span<const T>(&value, 1));
}

void append_row(Dataset& column, const std::vector<float>& row) {
  column.append(std::span<const float>(row));
}

// What a killed process left aside.
void remove_partial_files(const std::filesystem::path& file) {
  const std::string prefix = file.filename().string() + ".";
  const auto dir = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  std::error_code ignored;
  for (std::filesystem::directory_iterator entry(dir, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".partial")) std::filesystem::remove(entry->path(), ignored);
  }
}

// The number of leading rows whose step is at most `step`.
std::int64_t rows_until(const Table& table, std::int64_t step) {
  const auto steps = table.step.read<std::int64_t>();
  if (!std::is_sorted(steps.begin(), steps.end())) throw Error("{}: steps are not in order", table.step.where());
  return std::upper_bound(steps.begin(), steps.end(), step) - steps.begin();
}

template <class T>
void expect_same(const std::string& file, const char* what, const T& found, const T& expected) {
  if (found != expected)
    throw Error("{}: {} differs from this run's: it records another model or other probe tokens", file, what);
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
}

}  // namespace

struct RoutingRecord::Impl {
  std::filesystem::path name;
  File file;
  std::optional<Tables> tables;
  std::int64_t reads = 0, sources = 0, hidden_size = 0, alpha_row = 0;
  std::vector<RoutingSnapshot> snapshots;
  std::vector<TrainRow> train;
  std::vector<ValidRow> valid;
  std::int64_t last_snapshot = no_step, last_alpha = no_step, last_train = no_step, last_valid = no_step;
  bool failed = false;

  Impl(std::filesystem::path name_, const RoutingRecordInfo& info)
      : name(std::move(name_)),
        reads(static_cast<std::int64_t>(info.reads.size())),
        sources(static_cast<std::int64_t>(info.sources.size())),
        hidden_size(info.hidden_size),
        alpha_row(reads * info.sequences * info.positions * sources) {}

  ~Impl() {
    tables.reset();
    if (failed) return;
    try {
      file.close();
    } catch (const std::exception& error) {
      spdlog::error("{}", error.what());
    }
  }

  // After a failed write nothing more reaches the file (FileState::give_up), so nothing more may seem to.
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

  void expect_row(const char* what, std::size_t found, std::int64_t expected) const {
    if (static_cast<std::int64_t>(found) != expected)
      throw Error("{}: {}: a row of {} values, expected {}", name.string(), what, found, expected);
  }
  void expect_later(const char* what, std::int64_t step, std::int64_t& last) const {
    if (step <= last)
      throw Error("{}: {}: step {} after step {}, expected a later one", name.string(), what, step, last);
    last = step;
  }

  void write_snapshots() {
    if (snapshots.empty()) return;
    auto& columns = tables->snapshot.columns;
    for (const RoutingSnapshot& row : snapshots) {
      append_value(columns[0], row.tokens_seen);
      append_row(columns[1], row.alpha_mean);
      append_row(columns[2], row.alpha_std);
      append_row(columns[3], row.alpha_entropy);
      append_row(columns[4], row.source_rms);
      append_row(columns[5], row.query);
      append_row(columns[6], row.gain);
      append_row(columns[7], row.bias);
    }
    write_steps(tables->snapshot, snapshots);
  }

  void write_train() {
    if (train.empty()) return;
    auto& columns = tables->train.columns;
    for (const TrainRow& row : train) {
      append_value(columns[0], row.tokens_seen);
      append_value(columns[1], row.loss);
      append_value(columns[2], row.learning_rate);
      append_value(columns[3], row.grad_norm);
      append_value(columns[4], row.tokens_per_second);
      append_value(columns[5], row.seconds);
    }
    write_steps(tables->train, train);
  }

  void write_valid() {
    if (valid.empty()) return;
    for (const ValidRow& row : valid) append_value(tables->valid.columns[0], row.loss);
    write_steps(tables->valid, valid);
  }

  template <class Row>
  void write_steps(Table& table, std::vector<Row>& rows) {
    table.flush_columns();
    for (const Row& row : rows) append_value(table.step, row.step);
    table.step.flush();
    rows.clear();
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
  remove_partial_files(file);
  const auto partial = partial_name(file);
  auto impl = std::make_unique<Impl>(file, info);
  try {
    impl->file = File::create_for_swmr(partial);
    impl->guarded([&] {
      routing_format::create(impl->file, info, created);
      impl->tables.emplace(impl->file);
      fill(*impl);
      impl->file.start_swmr();
      impl->file.flush();
      sync_path(partial);
    });
    if (std::rename(partial.c_str(), file.c_str()) != 0)
      throw Error("{}: cannot rename to {}: {}", partial.string(), file.string(), std::strerror(errno));
  } catch (...) {
    impl.reset();
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  sync_path(file.has_parent_path() ? file.parent_path() : ".");
  return RoutingRecord(std::move(impl));
}

RoutingRecord RoutingRecord::create(const std::filesystem::path& file, const RoutingRecordInfo& info) {
  if (std::filesystem::exists(file)) throw Error("{}: exists already, expected to create it", file.string());
  return start(file, info, "", [](Impl&) {});
}

RoutingRecord RoutingRecord::resume(const std::filesystem::path& file, const RoutingRecordInfo& info,
                                    std::int64_t step) {
  const File old = File::open(file);
  expect_same_record(file.string(), routing_format::read_info(old), info);
  return start(file, info, old.text("created"), [&](Impl& impl) {
    Tables from(old);
    const std::array<std::int64_t*, 4> last{&impl.last_snapshot, &impl.last_alpha, &impl.last_train, &impl.last_valid};
    for (std::size_t t = 0; t < last.size(); ++t) {
      const Table& source = *from.all()[t];
      Table& target = *impl.tables->all()[t];
      const std::int64_t rows = rows_until(source, step);
      for (std::size_t c = 0; c < source.columns.size(); ++c) target.columns[c].append_from(source.columns[c], rows);
      target.step.append_from(source.step, rows);
      if (rows > 0) *last[t] = source.step.read_rows<std::int64_t>(rows - 1, 1)[0];
    }
  });
}

void RoutingRecord::append(const RoutingSnapshot& row) {
  Impl& impl = *impl_;
  impl.expect_row("/alpha_mean", row.alpha_mean.size(), impl.reads * impl.sources);
  impl.expect_row("/alpha_std", row.alpha_std.size(), impl.reads * impl.sources);
  impl.expect_row("/alpha_entropy", row.alpha_entropy.size(), impl.reads);
  impl.expect_row("/source_rms", row.source_rms.size(), impl.reads * impl.sources);
  impl.expect_row("/query", row.query.size(), impl.reads * impl.hidden_size);
  impl.expect_row("/gain", row.gain.size(), impl.reads * impl.hidden_size);
  impl.expect_row("/bias", row.bias.size(), impl.reads);
  impl.expect_later("/step", row.step, impl.last_snapshot);
  impl.snapshots.push_back(row);
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
    table.columns[0].append(std::span<const hdf5::half>(narrow));
    table.flush_columns();
    append_value(table.step, step);
    table.step.flush();
  });
}

void RoutingRecord::append(const TrainRow& row) {
  impl_->expect_later("/train/step", row.step, impl_->last_train);
  impl_->train.push_back(row);
}

void RoutingRecord::append(const ValidRow& row) {
  impl_->expect_later("/valid/step", row.step, impl_->last_valid);
  impl_->valid.push_back(row);
}

void RoutingRecord::flush(bool sync) {
  Impl& impl = *impl_;
  impl.guarded([&] {
    impl.write_snapshots();
    impl.write_train();
    impl.write_valid();
    if (sync) sync_path(impl.name);
  });
}

}  // namespace routescope
