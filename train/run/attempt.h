// One attempt at a run: training from a start point until the run is finished, stops, or must go back to a checkpoint.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/records/routing_record.h"
#include "kernels/comm/communicator.h"
#include "kernels/memory.h"
#include "model/pass/pass.h"
#include "train/checkpoint/checkpoint_writer.h"
#include "train/config/config.h"
#include "train/config/schedule.h"
#include "train/optimizer/optimizer.h"
#include "train/run/loop.h"
#include "train/run/progress.h"
#include "train/run/rank_times.h"
#include "train/run/recorder.h"
#include "train/run/start.h"
#include "train/run/step.h"

namespace routescope::train {

class Attempt {
 public:
  /// Loads the model, the optimizer's state and the record of `start`. Throws Error or AgreedError.
  Attempt(const TrainConfig& config, const LoopOptions& options, const Streams& streams,
          kernels::Communicator& communicator, const StartPoint& start);

  /// Trains. Returns nothing if the run must go back to a checkpoint: too many steps in a row were not finite, or the
  /// weights of a checkpoint that was due are not (failure()).
  std::optional<LoopResult> run();

  /// What the run had reached when run() returned.
  const TrainState& state() const { return state_; }
  /// Why run() returned nothing: "found ..., expected finite numbers".
  const std::string& failure() const { return failure_; }

 private:
  bool first_rank() const { return communicator_.rank() == 0; }
  Progress::Totals measure_totals();
  void log_start(const Progress& progress) const;
  void log_waiting() const;

  struct Votes {
    int stop = 0;            // why to stop, or 0
    bool data_lost = false;  // a rank can no longer read its data
  };
  Votes exchange_votes();
  void report_input_error();
  void update(Progress& progress);
  void observe(Progress& progress, const std::optional<data::TrainRow>& row);
  void measure_snapshot();
  void write_snapshot();
  void flush(bool sync);
  void checkpoint();

  const TrainConfig& config_;
  const LoopOptions& options_;
  const Streams& streams_;
  kernels::Communicator& communicator_;
  std::filesystem::path dir_;
  TrainState state_;
  std::int64_t checkpointed_ = -1;  // step of the newest checkpoint
  std::string failure_, input_error_;
  model::Model model_;
  Optimizer optimizer_;
  kernels::OwnedTensor gradients_;
  model::Pass pass_;
  RoutingRecorder recorder_;
  CheckpointWriter writer_;
  std::optional<data::RoutingRecord> record_;  // on rank 0
  RankTimes rank_times_;                       // on rank 0; the others have an empty one
  StepSchedule checkpoints_, validations_, snapshots_, per_token_;
  std::optional<data::RoutingSnapshot> snapshot_;    // measured, not yet written
  std::vector<float> alpha_;                         // the snapshot's weights of every token, or empty
  std::chrono::steady_clock::time_point flushed_{};  // when readers of the record last got new rows
  struct {
    std::chrono::steady_clock::time_point time;
    kernels::Communicator::Traffic traffic;
    double checkpoint_seconds = 0;
  } begin_;  // when the first step began
};

}  // namespace routescope::train
