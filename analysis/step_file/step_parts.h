// Rows that several programs add to one file with a row for each step (data/parts/row_parts.h). In templates below,
// Record has `identity` with `tokens`, `created` and `rows`; a row has `step`, `model_sha256` and `seconds`; and
// difference_of() of two identities says what was measured otherwise.
#pragma once

#include <compare>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "analysis/record/record.h"
#include "analysis/step_file/step_file.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/paths.h"
#include "data/parts/row_parts.h"

namespace routescope::analysis {

/// How such a file is read, and a new one is written.
template <class Record>
struct StepFileAccess {
  Record (*read)(const std::filesystem::path& file);
  void (*write)(const Record& record, const std::filesystem::path& file);
};

/// Whether there is a record under this name: the file, or a part of it.
inline bool has_rows(const std::filesystem::path& file) {
  return std::filesystem::exists(file) || !data::part_names(data::follow_links(file)).empty();
}

template <class Record>
struct StepPart {
  std::filesystem::path file;
  Record record;
};

/// By name. Throws Error for one that cannot be read, or that does not hold one row.
template <class Record>
std::vector<StepPart<Record>> read_parts(const std::filesystem::path& file, const StepFileAccess<Record>& access) {
  std::vector<StepPart<Record>> out;
  for (const std::filesystem::path& name : data::part_names(data::follow_links(file))) {
    try {
      out.push_back({name, access.read(name)});
    } catch (const data::Error&) {
      if (std::filesystem::exists(name)) throw;  // else it was joined meanwhile
      continue;
    }
    if (const std::size_t rows = out.back().record.rows.size(); rows != 1)
      throw data::Error("{}: found {} rows, expected one", name.string(), rows);
  }
  return out;
}

/// Adds rows of parts, and returns whether the record has changed. Parts that were measured otherwise are left out. Of
/// two rows of one step and the same weights the quicker one stays, so that any order gives the same; of other weights
/// the one that was there.
template <class Record>
bool merge_parts(Record& record, std::vector<StepPart<Record>> parts) {
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
    return a.record.rows.front().model_sha256 < b.record.rows.front().model_sha256;
  });
  bool changed = false;
  for (const StepPart<Record>& part : parts) {
    if (!difference_of(record.identity, part.record.identity).empty()) continue;
    const auto take_least = [&](std::string& own, const std::string& other) {
      if (!own.empty() && own <= other) return;
      own = other;
      changed = true;
    };
    take_least(record.created, part.record.created);
    take_least(record.identity.tokens.origin, part.record.identity.tokens.origin);
    const auto& row = part.record.rows.front();
    const auto* found = row_at(record.rows, row.step);
    if (found && (found->model_sha256 != row.model_sha256 || std::strong_order(row.seconds, found->seconds) >= 0))
      continue;
    put_row(record.rows, row);
    changed = true;
  }
  return changed;
}

/// The file with the rows of its parts, at any moment. Throws Error.
template <class Record>
Record load_rows(const std::filesystem::path& file, const StepFileAccess<Record>& access) {
  // The parts first: one that was joined before now is in the file.
  std::vector<StepPart<Record>> parts = read_parts(file, access);
  Record record = parts.empty() || std::filesystem::exists(file) ? access.read(file)
                                                                 : Record{parts.front().record.identity, {}, {}};
  merge_parts(record, std::move(parts));
  return record;
}

/// Joins the parts of `file` into it. One whose row it does not take is moved to data::kept_name(). Throws Error.
template <class Record>
void join_rows(const std::filesystem::path& name, const StepFileAccess<Record>& access) {
  const std::filesystem::path file = data::follow_links(name);
  std::vector<StepPart<Record>> parts;
  Record record;
  const auto write = [&](const std::filesystem::path& next) {
    parts = read_parts(file, access);
    if (parts.empty()) return false;
    const bool there = std::filesystem::exists(file);
    record = there ? access.read(file) : Record{parts.front().record.identity, {}, {}};
    if (!merge_parts(record, parts) && there) return false;
    access.write(record, next);
    return true;
  };
  const auto remove = [&] {
    std::error_code ignored;  // another program may have done it
    for (const StepPart<Record>& part : parts) {
      const auto* row = row_at(record.rows, part.record.rows.front().step);
      const bool held = difference_of(record.identity, part.record.identity).empty() && row &&
                        row->model_sha256 == part.record.rows.front().model_sha256;
      if (held)
        std::filesystem::remove(part.file, ignored);
      else
        std::filesystem::rename(part.file, data::kept_name(part.file), ignored);
    }
  };
  data::join_parts(file, {write, remove});
}

/// Writes the row as a part and joins it: it is durable when this returns. Throws Error if the file holds what was
/// measured otherwise, or a row of this step of other weights; the row is then kept in a file that the error names.
template <class Record, class Identity, class Row>
void add_row(const std::filesystem::path& name, const Identity& identity, const Row& row,
             const StepFileAccess<Record>& access) {
  const std::filesystem::path file = data::follow_links(name), part = data::new_part_name(file, row.step);
  const Record own{identity, now(), {row}};
  data::write_atomically(part, [&](const std::filesystem::path& partial) { access.write(own, partial); });
  join_rows(file, access);
  const Record joined = access.read(file);
  std::string difference = difference_of(joined.identity, identity);
  const Row* found = row_at(joined.rows, row.step);
  if (difference.empty() && found && found->model_sha256 != row.model_sha256)
    difference =
        fmt::format("/model_sha256: step {}: found {}, expected {}", row.step, found->model_sha256, row.model_sha256);
  if (difference.empty()) return;
  std::error_code ignored;  // whoever joined may have done it
  std::filesystem::rename(part, data::kept_name(part), ignored);
  throw data::Error("{}: {}: the row of step {} is in {}", file.string(), difference, row.step,
                    data::kept_name(part).string());
}

}  // namespace routescope::analysis
