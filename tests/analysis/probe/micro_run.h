// A run directory as training leaves it, of micro models: configuration, routing record, checkpoints with manifests.
#pragma once

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>

#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/records/routing_record.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

/// Saves a model as the checkpoint of a step.
inline void save_checkpoint(const std::filesystem::path& run_dir, std::int64_t step, const model::Model& model) {
  const auto dir = data::checkpoint_dir(run_dir, step);
  std::filesystem::create_directories(dir);
  model.save(dir);
  data::write_manifest(dir);
}

/// A snapshot with equal weights of every source that a read has.
inline data::RoutingSnapshot uniform_snapshot(const model::Model& model, std::int64_t step) {
  const model::ReadPlan& plan = model.plan();
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  const auto d = static_cast<std::size_t>(model.config().hidden_size);
  data::RoutingSnapshot out;
  out.step = step;
  out.tokens_seen = step * 64;
  out.alpha_mean.assign(reads * columns, std::numeric_limits<float>::quiet_NaN());
  out.alpha_std = out.source_rms = out.alpha_mean;
  for (std::size_t r = 0; r < reads; ++r) {
    const auto& at = plan.reads[r].columns;
    for (int column : at) {
      out.alpha_mean[r * columns + static_cast<std::size_t>(column)] = 1.0F / static_cast<float>(at.size());
      out.alpha_std[r * columns + static_cast<std::size_t>(column)] = 0.0F;
    }
    out.alpha_entropy.push_back(std::log(static_cast<float>(at.size())));
  }
  out.contribution_mean = out.norm_mass_mean = out.alpha_mean;
  out.query.assign(reads * d, 0.0F);
  out.gain.assign(reads * d, 1.0F);
  out.bias.assign(reads, 0.0F);
  return out;
}

/// Steps 0, 1, 2, 4 of a run of 4 steps (64 tokens each); the model of step s has other queries than that of step t.
inline void make_run(const std::filesystem::path& run_dir, const model::ModelConfig& config,
                     const std::vector<std::int64_t>& steps = {0, 1, 2, 4}) {
  std::filesystem::create_directories(run_dir);
  data::write_text_atomically(run_dir / "config.yaml", "run: {seed: 1}\ntrain: {steps: 4, tokens_per_step: 64}\n");
  model::Model model(config, {});
  model.initialize(21);

  const model::ReadPlan& plan = model.plan();
  data::RoutingRecordInfo info;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    info.reads.push_back(read.name);
    info.layer.push_back(static_cast<std::int32_t>(read.layer));
    info.sublayer.push_back(model::to_string(read.sublayer));
    info.depth.push_back(model::to_string(plan.depth(r)));
  }
  info.sources = plan.columns;
  info.hidden_size = config.hidden_size;
  const analysis::ProbeTokens tokens = micro_tokens(6, 10);
  info.sequences = tokens.sequences;
  info.positions = tokens.positions;
  info.probe_tokens = tokens.ids;
  info.config = data::read_text(run_dir / "config.yaml");

  data::RoutingRecord record = data::RoutingRecord::create(run_dir / "routing.h5", info);
  for (std::int64_t step : steps) {
    for (std::size_t r = 0; r < model.weights().reads.size(); ++r) {
      kernels::random_normal(model.weights().reads[r].query, 0.2 * static_cast<double>(step), 22, r, kernels::Stream{});
    }
    model.refresh_operands();
    record.append(uniform_snapshot(model, step));
    record.append(data::ValidRow{step, 3.6 - 0.1 * static_cast<double>(step)});
    save_checkpoint(run_dir, step, model);
  }
  for (std::int64_t step = 1; step <= 4; ++step) {
    record.append(data::TrainRow{step, step * 64, 3.6 - 0.1 * static_cast<double>(step), 1e-3, 1.0, 1000.0, 0.064});
  }
  record.flush(true);
}

}  // namespace routescope::testing
