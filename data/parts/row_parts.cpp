#include "data/parts/row_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* part_ending = ".part";
// Of a step in the names of parts, so that they are in the order of steps.
constexpr int step_digits = 8;

fs::path parent_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : ".";
}

std::string part_prefix(const fs::path& file) {
  return file.filename().string() + "-step-";
}

/// One look: returns whether the file holds all parts, of which it removes those it may.
bool join_once(const fs::path& file, const PartJoin& join, bool& others) {
  // Whoever finds this place knows that the file may be written anew, from what is read below.
  Unfinished next(file);
  others = next.has_others();
  if (join.write(next.path())) {
    next.publish();
    return false;
  }
  if (!others) join.remove();
  return true;
}

}  // namespace

std::vector<fs::path> part_names(const fs::path& file) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator entry(parent_of(file), error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(part_prefix(file)) && name.ends_with(part_ending)) out.push_back(entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw Error("{}: cannot read: {}", parent_of(file).string(), error.message());
  std::sort(out.begin(), out.end());
  return out;
}

fs::path new_part_name(const fs::path& file, std::int64_t step) {
  std::random_device random;
  return parent_of(file) /
         fmt::format("{}{:0{}}-{:08x}{:08x}{}", part_prefix(file), step, step_digits, random(), random(), part_ending);
}

fs::path kept_name(const fs::path& part) {
  return fs::path(part).replace_extension(".h5");
}

void join_parts(const fs::path& file, const PartJoin& join) {
  if (part_names(file).empty()) return;
  // After writing a look shows whether another program has written at the same time. What others still hold is left to
  // whoever comes next.
  constexpr int most_looks = 3;
  std::minstd_rand random(std::random_device{}());
  for (int look = 0; look < most_looks;) {
    bool others = false;
    const bool joined = join_once(file, join, others);
    if (joined && (!others || part_names(file).empty())) return;
    if (joined) ++look;
    if (joined) std::this_thread::sleep_for(std::chrono::milliseconds(5 + random() % 20));
  }
}

}  // namespace routescope::data
