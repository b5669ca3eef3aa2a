// What analysis.h5 keeps of a row, dataset by dataset. Each is described here once; writing and reading follow it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "analysis/record/record.h"
#include "data/hdf5/file.h"

namespace routescope::analysis {

struct Findings;

inline constexpr const char* analysis_filetype = "routescope analysis";
inline constexpr std::int64_t analysis_version_major = 2, analysis_version_minor = 0;

/// A dataset [step, axes...].
struct RecordField {
  std::string name;
  std::vector<std::string> axes;  // after the step
  std::string units, description;
  /// The row's values, the last axis fastest. None: not measured, NaN (-1, 0) in the file.
  std::function<std::vector<double>(const ProbeRow&)> get;
  std::function<void(ProbeRow&, std::vector<double>)> set;
  data::hdf5::Type type = data::hdf5::Type::f64;  // or i32, u8
  bool padded = false;                            // get() may give fewer than the axes hold; the rest reads as NaN (-1)
};

using RecordAttribute = std::variant<std::string, std::int64_t, double>;
using RecordAttributes = std::vector<std::pair<std::string, RecordAttribute>>;

/// Datasets with one estimand, which stands on their group or, where they lie in the root (path ""), on each of them.
struct RecordGroup {
  std::string path;
  RecordAttributes attributes;
  std::vector<RecordField> fields;
  /// Which rows have any of it. Empty: all; else the group has a /step of its own.
  std::function<bool(const ProbeRow&)> has = {};
};

/// Everything that rows measured like this have, in the order in which it is written.
std::vector<RecordGroup> record_groups(const ProbeIdentity& identity);

/// The attributes by which a result states its estimand.
RecordAttributes estimand(const ProbeIdentity& identity, const std::string& intervention, const std::string& metric,
                          const std::string& unit);

/// The groups /dissociation, /motif/NAME and /content, as far as the findings have them. Axes exist.
void write_findings(data::hdf5::Group& file, const ProbeIdentity& identity, const Findings& findings);

/// Lengths of all axes but the steps and, of the atlas, `check`, which differ from file to file.
std::map<std::string, std::int64_t> record_axes(const ProbeIdentity& identity);

/// Name of the dataset (and end of the name of effects) of a class of tokens' axis: "position_class".
std::string class_axis(const TokenClasses& classes);

}  // namespace routescope::analysis
