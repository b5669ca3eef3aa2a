#include "analysis/record/record_parts.h"

#include <algorithm>
#include <chrono>
#include <compare>
#include <random>
#include <thread>
#include <tuple>

#include "analysis/record/record.h"
#include "analysis/record/record_read.h"
#include "analysis/record/record_write.h"
#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/paths.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {
namespace {

namespace fs = std::filesystem;

constexpr const char* part_ending = ".part";
constexpr const char* replaces_attribute = "replaces";
// Of a step in the names of parts, so that they are in the order of steps.
constexpr int step_digits = 8;

fs::path parent_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : ".";
}

std::string part_prefix(const fs::path& file) {
  return file.filename().string() + "-step-";
}

std::vector<fs::path> part_names(const fs::path& file) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator entry(parent_of(file), error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(part_prefix(file)) && name.ends_with(part_ending)) out.push_back(entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw data::Error("{}: cannot read: {}", parent_of(file).string(), error.message());
  std::sort(out.begin(), out.end());
  return out;
}

fs::path new_part_name(const fs::path& file, std::int64_t step) {
  std::random_device random;
  return parent_of(file) /
         fmt::format("{}{:0{}}-{:08x}{:08x}{}", part_prefix(file), step, step_digits, random(), random(), part_ending);
}

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

/// What a join may change of a record.
std::string content_of(const AnalysisRecord& record) {
  std::string out = record.created;
  std::apply([&](const auto&... name) { ((out += '\n' + name), ...); }, names_of(record.identity));
  for (const ProbeRow& row : record.rows)
    out += fmt::format("\n{} {} {} {} {:a}", row.step, row.model_sha256, row.atlas.empty(), row.atlas.checked.size(),
                       row.cost.seconds);
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
      fs::rename(part.file, kept_name(part.file), ignored);
  }
}

/// One look: returns whether the file holds all parts, of which it removes those it may.
bool join_once(const fs::path& file, bool& others) {
  // Whoever finds this place knows that the file may be written anew, from what is read below.
  data::Unfinished next(file);
  others = next.has_others();
  const std::vector<RecordPart> parts = read_parts(file);
  if (parts.empty()) return true;
  const bool there = fs::exists(file);
  AnalysisRecord record =
      there ? read_record(data::hdf5::File::open(file)) : AnalysisRecord{parts.front().record.identity, {}, {}};
  const std::string before = content_of(record);
  merge_parts(record, parts);
  if (!there || content_of(record) != before) {
    write_record_file(record, next.path());
    next.publish();
    return false;
  }
  if (!others) remove_joined(record, parts);
  return true;
}

}  // namespace

bool has_parts(const fs::path& file) {
  return !part_names(data::follow_links(file)).empty();
}

std::vector<RecordPart> read_parts(const fs::path& file) {
  std::vector<RecordPart> out;
  for (const fs::path& name : part_names(data::follow_links(file))) {
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
      if (!takes && !(same && stands_before(row, *found))) return false;
      record.put(row);
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
  if (part_names(file).empty()) return;
  // After writing a look shows whether another program has written at the same time. What others still hold is left to
  // whoever comes next.
  constexpr int most_looks = 3;
  std::minstd_rand random(std::random_device{}());
  for (int look = 0; look < most_looks;) {
    bool others = false;
    const bool joined = join_once(file, others);
    if (joined && (!others || part_names(file).empty())) return;
    if (joined) ++look;
    if (joined) std::this_thread::sleep_for(std::chrono::milliseconds(5 + random() % 20));
  }
}

void add_row(const fs::path& name, const ProbeIdentity& identity, const ProbeRow& row, const std::string& replaces) {
  const fs::path file = data::follow_links(name), part = new_part_name(file, row.step);
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
  fs::rename(part, kept_name(part), ignored);
  throw data::Error("{}: {}: the row of step {} is in {}", file.string(), difference, row.step,
                    kept_name(part).string());
}

fs::path kept_name(const fs::path& part) {
  return fs::path(part).replace_extension(".h5");
}

}  // namespace routescope::analysis
