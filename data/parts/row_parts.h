// Rows that several programs measure for one file at a time, on one machine or on several that share a file system.
// Each row is first a file of its own beside the file, a part. Whoever comes next joins the parts. No lock is needed,
// and nothing is lost to a kill (data/formats/analysis.md, "Parts").
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

namespace routescope::data {

/// The parts of `file`, FILE-step-STEP-RANDOM.part, by name. Throws Error if the directory cannot be read.
std::vector<std::filesystem::path> part_names(const std::filesystem::path& file);
/// A name that no part has.
std::filesystem::path new_part_name(const std::filesystem::path& file, std::int64_t step);
/// Where a part goes that was measured otherwise than the file that it is a part of.
std::filesystem::path kept_name(const std::filesystem::path& part);

struct PartJoin {
  /// Reads the parts, then the file, and writes what both hold to `next`; false, and writes nothing, where the file
  /// holds it already.
  std::function<bool(const std::filesystem::path& next)> write;
  /// Removes the parts that write() read last, or moves those that the file does not hold to kept_name().
  std::function<void()> remove;
};

/// Joins until `file` holds all parts, and removes these, unless another program is writing in the same directory: it
/// which may have read the file before. Without parts nothing is written. Throws Error.
void join_parts(const std::filesystem::path& file, const PartJoin& join);

}  // namespace routescope::data
