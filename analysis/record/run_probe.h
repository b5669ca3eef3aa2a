// Probing the saved steps of a run: which are there, which are new, and the record that keeps the results.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "analysis/probe/probe.h"
#include "analysis/record/record.h"
#include "data/base/manifest.h"
#include "kernels/comm/communicator.h"

namespace routescope::analysis {

/// The last step that a run's config.yaml asks for (train.steps). Throws Error if it does not say.
std::int64_t planned_steps(const std::filesystem::path& run_dir);

/// The checksum of DIR/model.safetensors: a checkpoint's manifest knows it, elsewhere it is computed.
std::string model_sha256(const std::filesystem::path& model_dir);

/// identify() (identity.h) with the tokens that the settings name, for a model directory (of run `run_dir`, whose probe
/// tokens serve where the settings name none) or with the prompts of the task that they name. Throws Error, UsageError.
ProbeIdentity identify(const ProbeSettings& settings, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir);

/// Where the rows of a run go: DIR/analysis.h5, of a task DIR/task-NAME.h5 or, denoising, DIR/task-NAME-denoising.h5.
std::filesystem::path record_file(const std::filesystem::path& run_dir, const ProbeSettings& settings);

/// Whether a checksum is that of the weights of `model_dir`, or of those that they were rounded from
/// (checkpoint.weights_dtype): what was measured on these is of the same step. Throws Error.
bool is_of_weights(const std::string& sha256, const std::filesystem::path& model_dir);

/// What to do about a step whose row is of other weights than are saved now.
enum class OtherWeights { refuse, probe_again };

/// A record in a file, and the one way to fill it. Ranks hold the same record and call everything but has() together;
/// rank 0 writes the file. Any number of these may fill one file.
class RecordedProbe {
 public:
  /// Throws Error if the file holds what was measured otherwise. An empty `file` keeps the record in memory. `of_run`:
  /// what a model has learned counts from the row of step 0, if there is one; else from a uniform guess.
  RecordedProbe(std::filesystem::path file, const ProbeIdentity& identity, const model::ModelOptions& options,
                kernels::Communicator& communicator, bool of_run = true);

  /// Whether row() would give the recorded row of a step. False also where the settings ask for an atlas and it has
  /// none, or one with fewer true ablations of routes drawn at random; likewise for writers.
  bool has(std::int64_t step) const;
  /// Whether the recorded row of a step, if there is one, is of the weights that `model_dir` has now
  /// (is_of_weights()). Rank 0's word.
  bool is_of(std::int64_t step, const std::filesystem::path& model_dir) const;
  /// The row of a step: the recorded one, or a new one, which is then saved; an atlas or writers are added to a
  /// recorded row that lacks them, as has() says. A checkpoint is verified first. Weights
  /// that were rounded since are other weights for what is to be added. Throws Error if the recorded row is that of
  /// other weights and these are to be refused, and if the weights change while they are read.
  const ProbeRow& row(std::int64_t step, const std::filesystem::path& model_dir,
                      OtherWeights other = OtherWeights::refuse);
  const AnalysisRecord& record() const { return record_; }

  /// Takes over the rows that other programs have added to the file.
  void refresh();

 private:
  /// The rows of the file, the same on every rank.
  void load();
  bool has_atlas(const ProbeRow& row) const;
  bool has_writers(const ProbeRow& row) const { return !identity_.settings.writers || !row.writers.empty(); }
  /// Adds a row to the file.
  void keep(const ProbeRow& row, const std::filesystem::path& model_dir, OtherWeights other);
  /// What the row of a step is measured against.
  ProbeOptions options_of(std::int64_t step) const;
  [[noreturn]] void refuse(std::int64_t step, const std::string& found, const std::filesystem::path& model_dir) const;

  std::filesystem::path file_;
  ProbeIdentity identity_;
  model::ModelOptions options_;
  kernels::Communicator& communicator_;
  bool of_run_;
  AnalysisRecord record_;
};

}  // namespace routescope::analysis
