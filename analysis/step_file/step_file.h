// Files with a row for each training step, all measured on the same tokens: circuit.h5, coalitions.h5. What such files
// have in common; each has a schema of its own (data::RowField).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/statistics/statistics.h"
#include "data/hdf5/file.h"
#include "data/records/record_field.h"

namespace routescope::analysis {

struct StepFileFormat {
  const char* filetype;
  std::int64_t version_major, version_minor;
};

/// Attributes that say what the file is. `settings`: JSON, one line.
void write_root(data::hdf5::File& file, const StepFileFormat& format, const std::string& created,
                const std::string& model_config, const std::string& settings, const ProbeTokens& tokens);
/// Throws Error naming the file for another filetype, another major version or a newer minor one.
void check_format(const data::hdf5::File& file, const StepFileFormat& format);

/// The axes /seq, /pos and /bound, the tokens, their documents and, of a task, its answers.
void write_tokens(data::hdf5::File& file, const ProbeTokens& tokens);
/// Throws Error.
ProbeTokens read_tokens(const data::hdf5::File& file);
/// What differs, as "WHAT: found ..., expected ..."; empty if nothing does. The name of their origin does not count.
std::string difference_of(const ProbeTokens& found, const ProbeTokens& expected);

/// /step and /model_sha256.
void write_steps(data::hdf5::File& file, const std::vector<std::int64_t>& step, const std::vector<std::string>& sha256);
/// Rising steps, and as many checksums. Throws Error.
std::vector<std::int64_t> read_steps(const data::hdf5::File& file, std::vector<std::string>& sha256);

/// The row of a step, or null. Row: has `step`.
template <class Row>
const Row* row_at(const std::vector<Row>& rows, std::int64_t step) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.step == step; });
  return found == rows.end() ? nullptr : &*found;
}
/// Adds a row, or replaces that of its step.
template <class Row>
void put_row(std::vector<Row>& rows, Row row) {
  std::erase_if(rows, [&](const Row& old) { return old.step == row.step; });
  const auto after = std::find_if(rows.begin(), rows.end(), [&](const Row& other) { return other.step > row.step; });
  rows.insert(after, std::move(row));
}

/// /step, /model_sha256 and every field. Throws std::logic_error for a row of another size than the axes say.
template <class Row>
void write_rows(data::hdf5::File& file, const std::vector<Row>& rows, const std::vector<data::RowField<Row>>& fields,
                const data::AxisLengths& axes);
/// The rows of a file. Throws Error.
template <class Row>
std::vector<Row> read_rows(const data::hdf5::File& file, const std::vector<data::RowField<Row>>& fields,
                           const data::AxisLengths& axes);

/// Estimates of a row, one or a vector of them: their values at `path`, and beside them PATH_ci.
template <class Row, class Member>
void add_estimates(std::vector<data::RowField<Row>>& fields, const std::string& path, std::vector<std::string> axes,
                   const std::string& units, const std::string& description, Member Row::*member);

// ---- implementation of the templates ----

/// Throws std::logic_error.
void expect_row_size(const std::string& path, std::int64_t step, std::size_t found, std::int64_t expected);

template <class Row>
void write_rows(data::hdf5::File& file, const std::vector<Row>& rows, const std::vector<data::RowField<Row>>& fields,
                const data::AxisLengths& axes) {
  constexpr int deflate = 4;
  std::vector<std::int64_t> step;
  std::vector<std::string> sha256;
  for (const Row& row : rows) {
    step.push_back(row.step);
    sha256.push_back(row.model_sha256);
  }
  write_steps(file, step, sha256);
  for (const data::RowField<Row>& field : fields) {
    std::vector<double> values;
    for (const Row& row : rows) {
      const std::vector<double> own = field.get(row);
      expect_row_size(field.path, row.step, own.size(), data::row_size(field, axes));
      values.insert(values.end(), own.begin(), own.end());
    }
    data::hdf5::Shape shape = data::shape_of(field, axes);
    shape.insert(shape.begin(), std::ssize(rows));
    data::hdf5::Layout layout = data::layout_of(field, {"step"});
    if (field.axes.size() > 1) layout.deflate = deflate;
    data::write_field(file, field, values, shape, layout);
  }
}

template <class Row>
std::vector<Row> read_rows(const data::hdf5::File& file, const std::vector<data::RowField<Row>>& fields,
                           const data::AxisLengths& axes) {
  std::vector<std::string> sha256;
  const std::vector<std::int64_t> steps = read_steps(file, sha256);
  std::vector<Row> rows(steps.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].step = steps[i];
    rows[i].model_sha256 = sha256[i];
  }
  for (const data::RowField<Row>& field : fields) {
    data::hdf5::Shape shape = data::shape_of(field, axes);
    shape.insert(shape.begin(), std::ssize(rows));
    const std::vector<double> values = data::checked_dataset(file, field, shape).template read<double>();
    const std::int64_t width = data::row_size(field, axes);
    for (std::int64_t i = 0; i < std::ssize(rows); ++i)
      field.set(rows[static_cast<std::size_t>(i)], {values.begin() + i * width, values.begin() + (i + 1) * width});
  }
  return rows;
}

template <class Row, class Member>
void add_estimates(std::vector<data::RowField<Row>>& fields, const std::string& path, std::vector<std::string> axes,
                   const std::string& units, const std::string& description, Member Row::*member) {
  using Values = std::vector<double>;
  const auto list = [member](auto& row) {
    if constexpr (std::is_same_v<Member, Estimate>)
      return std::span(&(row.*member), 1);
    else
      return std::span(row.*member);
  };
  const auto sized = [member, list](Row& row, [[maybe_unused]] std::size_t size) {
    if constexpr (!std::is_same_v<Member, Estimate>) (row.*member).resize(size);
    return list(row);
  };
  fields.push_back({{path, axes, units, description},
                    [list](const Row& row) {
                      Values out;
                      for (const Estimate& one : list(row)) out.push_back(one.value);
                      return out;
                    },
                    [sized](Row& row, const Values& values) {
                      const auto out = sized(row, values.size());
                      for (std::size_t i = 0; i < out.size(); ++i) out[i].value = values[i];
                    }});
  axes.emplace_back("bound");
  fields.push_back({{path + "_ci", axes, units, "interval of " + path},
                    [list](const Row& row) {
                      Values out;
                      for (const Estimate& one : list(row)) out.insert(out.end(), {one.ci.lower, one.ci.upper});
                      return out;
                    },
                    [sized](Row& row, const Values& values) {
                      const auto out = sized(row, values.size() / 2);
                      for (std::size_t i = 0; i < out.size(); ++i) out[i].ci = {values[2 * i], values[2 * i + 1]};
                    }});
}

}  // namespace routescope::analysis
