// The schema of analysis.h5: every dataset of a row, described once. Writing and reading follow it (record_write.h,
// record_read.h), and so does study.h5.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "analysis/record/record.h"
#include "data/hdf5/object.h"
#include "data/records/record_field.h"

namespace routescope::analysis {

inline constexpr const char* analysis_filetype = "routescope analysis";
inline constexpr std::int64_t analysis_version_minor = 1;
/// The oldest major version that is read; analysis_version_major (identity.h) is the one that is written.
inline constexpr std::int64_t analysis_version_oldest = 2;

/// A dataset [step, axes...]. Its path is within its group. No values: not measured.
using ProbeField = data::RowField<ProbeRow>;

using RecordAttribute = std::variant<std::string, std::int64_t, double>;
using RecordAttributes = std::vector<std::pair<std::string, RecordAttribute>>;
void set_attributes(data::hdf5::Object& object, const RecordAttributes& attributes);

/// Datasets with one estimand. Its attributes are those of their group or, for datasets in the root (path ""), of each
/// of them.
struct RecordGroup {
  std::string path;
  RecordAttributes attributes;
  std::vector<ProbeField> fields;
  /// Which rows have any of it. Empty: all; else the group has a /step of its own.
  std::function<bool(const ProbeRow&)> has = {};

  /// Whether fields lie on the axis `check`, which is then the group's own.
  bool has_checks() const;
  std::string path_of(const ProbeField& field) const { return path.empty() ? field.path : path + "/" + field.path; }
};

/// Everything that rows measured like this have, in the order in which it is written.
std::vector<RecordGroup> record_groups(const ProbeIdentity& identity);

/// The values of a row as a file holds them, `size` of them. Throws std::logic_error if the row has another number.
std::vector<double> row_values(const RecordGroup& group, const ProbeField& field, const ProbeRow& row,
                               std::int64_t size);

/// The attributes by which a result states its estimand.
RecordAttributes estimand(const ProbeIdentity& identity, const std::string& intervention, const std::string& metric,
                          const std::string& unit);

/// Lengths of all axes but the steps and, of the atlas, `check`, which differ from file to file.
data::AxisLengths record_axes(const ProbeIdentity& identity);

/// Name of the dataset (and end of the name of effects) of a class of tokens' axis: "position_class".
std::string class_axis(const TokenClasses& classes);

}  // namespace routescope::analysis
