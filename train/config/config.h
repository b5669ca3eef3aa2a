// The configuration of a run: one YAML file, overridden from the command line, checked, and written back complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "model/files/config.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "train/optimizer/settings.h"

namespace routescope::train {

/// All keys (configs/README.md explains them). Member names are the keys.
struct TrainConfig {
  struct Run {
    std::string dir;
    std::int64_t seed = 1;
  };
  struct Data {
    std::vector<std::string> train, valid;  // shards or patterns, relative to the working directory
    std::int64_t sequence_length = 2048;
  };
  using Optimizer = OptimizerSettings;
  struct Schedule {
    std::string kind = "cosine";  // cosine | wsd | constant
    std::int64_t warmup_steps = 0;
    double final_fraction = 0.1;  // of the peak, at the last step (cosine, wsd)
    double decay_fraction = 0.2;  // of all steps (wsd)
  };
  /// What to do when the loss or a gradient is NaN or infinite.
  struct NonFinite {
    std::int64_t skip = 2;       // steps in a row that are skipped before the run goes back to its last checkpoint
    std::int64_t roll_back = 2;  // how often the run goes back to the same checkpoint before it stops
  };
  struct Train {
    std::int64_t steps = 0;
    std::int64_t tokens_per_step = 524288;
    std::int64_t micro_batch = 1;  // sequences in one forward and backward pass
    Optimizer optimizer;
    Schedule schedule;
    double grad_clip = 1.0;  // 0: none
    NonFinite non_finite;
  };
  struct Valid {
    std::int64_t every = 250;  // 0: only the first and the last step
    std::int64_t tokens = 1048576;
  };
  struct Checkpoint {
    std::int64_t every = 1000;
    std::int64_t log_spaced_until = 512;
    std::int64_t keep = 0;              // number of newest checkpoints that are kept; 0: all
    std::int64_t keep_state = 0;        // number of newest ones that keep the optimizer's state; 0: all
    std::string weights_dtype = "f32";  // f32 | bf16: of those without it
    std::string async = "on";           // on | off: training goes on while a checkpoint is written
  };
  struct Routing {
    std::int64_t every = 100;
    std::int64_t log_spaced_until = 512;
    std::int64_t sequences = 32;
    std::int64_t per_token_every = 1000;  // 0: never
  };
  struct Distributed : Sharding {
    double timeout_seconds = 600;  // how long a rank waits for another one
  };

  /// How operations are computed; changes no result beyond rounding.
  struct Kernels {
    std::string attention = "auto";  // auto | builtin | cudnn (CUDA)
    std::string reads = "auto";      // auto | fused | two_phase: PassOptions::reads
    std::string recompute = "auto";  // auto | none | swiglu | norms | attention: PassOptions::recompute
    std::string graph = "off";       // on | off: PassOptions::graph (CUDA)
    // on | off: time the candidates for each product (CUDA). Another run may then choose others and round differently.
    std::string tune_products = "off";
  };

  Run run;
  std::string device = "auto";     // auto | cpu | cuda
  std::string precision = "auto";  // auto | f32 | bf16
  model::ModelConfig model;
  Data data;
  Train train;
  Valid valid;
  Checkpoint checkpoint;
  Routing routing;
  Distributed distributed;
  Kernels kernels;

  std::int64_t sequences_per_step() const { return train.tokens_per_step / data.sequence_length; }
  /// Device and arithmetic. `device` and `precision` must be resolved.
  model::ModelOptions model_options() const;
  /// `kernels` for a training pass. An unresolved kernels.recompute: auto counts as none (resolve_recompute()).
  model::PassOptions pass_options() const;
};

/// Reads `file`, then `overrides` ("key.path=value"), which take precedence. Throws Error (UsageError for an override)
/// with file and line, key, what was found and what was expected; for an unknown key with the nearest known one.
TrainConfig load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);
/// The same for the text of a file; `where` names it in messages.
TrainConfig parse_config(const std::string& text, const std::string& where, const std::vector<std::string>& overrides);

/// Replaces `device: auto` by what this machine has (resolve_precision() does so for the precision). Throws Error for a
/// device that this build or machine lacks, and for settings that the device does not have. With `planning`, device
/// cuda is accepted even if no device answers.
void resolve_backend(TrainConfig& config, bool planning = false);

/// The configuration key by key, in the file's order: ("train.steps", "20000"), values as YAML text.
std::vector<std::pair<std::string, std::string>> config_values(const TrainConfig& config);
/// The same as a YAML file that load_config() reads back to an equal configuration.
std::string to_yaml(const TrainConfig& config);

}  // namespace routescope::train
