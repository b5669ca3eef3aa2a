#include "analysis/record/record_parts.h"

#include <algorithm>
#include <compare>
#include <tuple>

#include "analysis/record/record.h"
#include "analysis/record/record_read.h"
#include "analysis/record/record_write.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/paths.h"
#include "data/hdf5/file.h"
#include "data/parts/row_parts.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

constexpr const char* replaces_attribute = "replaces";

/// What two identities that are the same may differ in: names of files. The least one stands in the record.
auto names_of(const ProbeIdentity& identity) {
  return std::tie(identity.settings.class_file, identity.tokens.origin, identity.patch.origin, identity.task.name,
                  identity.task.sha256);
}

/// Of two rows of one step and the same weights: which one stands.
bool stands_before(const ProbeRow& a, const ProbeRow& b) {
  if (a.atlas.empty() != b.atlas.empty()) return b.atlas.empty();
  if (a.atlas.checked.size() != b.atlas.checked.size()) return a.atlas.checked.size() > b.atlas.checked.size();
  return std::strong_order(a.cost.seconds, b.cost.seconds) < 0;
}

/// Writers are measured alone, for either row.
bool stands_before(const Writers& a, const Writers& b) {
  if (a.empty() || b.empty()) return !a.empty() && b.empty();
  return std::strong_order(a.seconds, b.seconds) < 0;
}

/// What a join may change of a record.
std::string content_of(const AnalysisRecord& record) {
  std::string out = record.created;
  std::apply([&](const auto&... name) { ((out += '\n' + name), ...); }, names_of(record.identity));
  for (const ProbeRow& row : record.rows)
    out += fmt::format("\n{} {} {} {} {:a} {:a}", row.step, row.model_sha256, row.atlas.empty(),
                       row.atlas.checked.size(), row.cost.seconds, row.writers.seconds);
  return out;
}

bool is_like(const AnalysisRecord& record, const RecordPart& part) {
  return difference_of(record.identity, part.record.identity).empty();
}

/// The parts that a record holds now, the oldest first: a row never outlives the row that replaced it.
void remove_joined(const AnalysisRecord& record, std::vector<RecordPart> parts) {
  std::stable_sort(parts.begin(), parts.end(),
                   [](const RecordPart& a, const RecordPart& b) { return a.record.created < b.record.created; });
  std::error_code ignored;  // another program may have done it
  for (const RecordPart& part : parts) {
    if (is_like(record, part))
      fs::remove(part.file, ignored);
    else
      fs::rename(part.file, data::kept_name(part.file), ignored);
  }
}

}  // namespace

bool has_parts(const fs::path& file) {
  return !data::part_names(data::follow_links(file)).empty();
}

std::vector<RecordPart> read_parts(const fs::path& file) {
  std::vector<RecordPart> out;
  for (const fs::path& name : data::part_names(data::follow_links(file))) {
    try {
      const data::hdf5::File in = data::hdf5::File::open(name);
      RecordPart part{name, read_record(in), in.text(replaces_attribute)};
      if (part.record.rows.size() != 1)
        throw data::Error("{}: found {} rows, expected one", name.string(), part.record.rows.size());
      out.push_back(std::move(part));
    } catch (const data::Error&) {
      if (fs::exists(name)) throw;  // else it was joined meanwhile
    }
  }
  return out;
}

void merge_parts(AnalysisRecord& record, const std::vector<RecordPart>& parts) {
  std::vector<const RecordPart*> open;
  for (const RecordPart& part : parts) {
    if (!is_like(record, part)) continue;
    open.push_back(&part);
    if (record.created.empty() || part.record.created < record.created) record.created = part.record.created;
    if (names_of(part.record.identity) < names_of(record.identity)) record.identity = part.record.identity;
  }
  std::stable_sort(open.begin(), open.end(), [](const RecordPart* a, const RecordPart* b) {
    return a->record.rows.front().model_sha256 < b->record.rows.front().model_sha256;
  });
  // Until no part changes anything: a row may replace one that another part brings. Each part is taken once.
  for (bool changed = true; changed;) {
    changed = false;
    std::erase_if(open, [&](const RecordPart* part) {
      const ProbeRow& row = part->record.rows.front();
      const ProbeRow* found = record.find(row.step);
      const bool same = found && found->model_sha256 == row.model_sha256;
      const bool takes = !found ? part->replaces.empty() : !same && part->replaces == found->model_sha256;
      const bool stands = same && stands_before(row, *found),
                 writes = same && stands_before(row.writers, found->writers);
      if (!takes && !stands && !writes) return false;
      ProbeRow next = takes || stands ? row : *found;
      if (same) next.writers = writes ? row.writers : found->writers;
      record.put(std::move(next));
      changed = true;
      return true;
    });
    if (changed) continue;
    // What was replaced is in no part any more.
    for (const RecordPart* part : open) {
      const ProbeRow& row = part->record.rows.front();
      if (record.find(row.step)) continue;
      record.put(row);
      changed = true;
      break;
    }
  }
}

void join_parts(const fs::path& name) {
  const fs::path file = data::follow_links(name);
  std::vector<RecordPart> parts;
  AnalysisRecord record;
  const auto write = [&](const fs::path& next) {
    parts = read_parts(file);
    if (parts.empty()) return false;
    const bool there = fs::exists(file);
    record = there ? read_record(data::hdf5::File::open(file)) : AnalysisRecord{parts.front().record.identity, {}, {}};
    const std::string before = content_of(record);
    merge_parts(record, parts);
    if (there && content_of(record) == before) return false;
    write_record_file(record, next);
    return true;
  };
  data::join_parts(file, {write, [&] { remove_joined(record, parts); }});
}

void add_row(const fs::path& name, const ProbeIdentity& identity, const ProbeRow& row, const std::string& replaces) {
  const fs::path file = data::follow_links(name), part = data::new_part_name(file, row.step);
  AnalysisRecord record{identity, now(), {row}};
  data::write_atomically(part, [&](const fs::path& partial) {
    data::hdf5::File out = data::hdf5::File::create(partial);
    write_record(out, record);
    out.set(replaces_attribute, replaces);
    out.close();
  });
  join_parts(file);
  const std::string difference = difference_of(read_record(data::hdf5::File::open(file)).identity, identity);
  if (difference.empty()) return;
  std::error_code ignored;  // whoever joined may have done it
  fs::rename(part, data::kept_name(part), ignored);
  throw data::Error("{}: {}: the row of step {} is in {}", file.string(), difference, row.step,
                    data::kept_name(part).string());
}

}  // namespace routescope::analysis
