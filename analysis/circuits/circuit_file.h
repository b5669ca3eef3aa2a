// circuit.h5: circuits, a row per training step (data/formats/circuit.md). Written whole beside its name and renamed;
// new rows come as parts.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/circuits/circuit.h"
#include "data/records/record_field.h"

namespace routescope::analysis {

/// Every dataset [step, ...] of a row, described once.
std::vector<data::RowField<CircuitRow>> circuit_fields();
data::AxisLengths circuit_axes(const CircuitIdentity& identity);

/// "circuit.h5", or "circuit-task-NAME.h5" of the prompts of a task: where circuits of a run go.
std::string circuit_name(const std::string& task);
/// Whether there is a record under this name: the file, or a part of it.
bool circuits_exist(const std::filesystem::path& file);
/// With the rows of its parts, at any moment. Throws Error: not such a file, of another version, or damaged.
CircuitRecord load_circuits(const std::filesystem::path& file);
/// Writes the row as a part and joins it (step_parts.h): it is durable when this returns. Throws Error if the file
/// holds what was measured otherwise, or this step of other weights; the row is then kept in a file that the error
/// names.
void add_circuit(const std::filesystem::path& file, const CircuitIdentity& identity, const CircuitRow& row);
/// Joins the parts that other programs left. Throws Error.
void join_circuits(const std::filesystem::path& file);
/// Complete or not at all; parts stay as they are. Sets `created` if it is empty. Throws Error.
void save_circuits(CircuitRecord& record, const std::filesystem::path& file);
/// The record in `file`, or an empty one if there is no such file. Throws Error naming the file and what differs when
/// its rows were measured otherwise than `identity` says.
CircuitRecord open_circuits(const std::filesystem::path& file, const CircuitIdentity& identity);
/// What is measured otherwise, as "WHAT: found ..., expected ..."; empty if nothing is.
std::string difference_of(const CircuitIdentity& found, const CircuitIdentity& expected);

}  // namespace routescope::analysis
