#include "analysis/inspect.h"

#include <fmt/format.h>

#include <cmath>

#include "analysis/findings.h"
#include "analysis/tables.h"
#include "data/error.h"
#include "data/manifest.h"
#include "data/routing_record.h"
#include "model/parameters.h"

namespace routescope {
namespace {

/// Of one snapshot, over its reads: the mean entropy, and what it would be if every read weighed its sources alike.
std::string entropy_line(const RoutingSnapshot& snapshot, std::size_t columns) {
  double entropy = 0, uniform = 0;
  const std::size_t reads = snapshot.alpha_entropy.size();
  for (std::size_t r = 0; r < reads; ++r) {
    int sources = 0;
    for (std::size_t c = 0; c < columns; ++c) sources += !std::isnan(snapshot.alpha_mean[r * columns + c]);
    entropy += static_cast<double>(snapshot.alpha_entropy[r]) / static_cast<double>(reads);
    uniform += std::log(static_cast<double>(sources)) / static_cast<double>(reads);
  }
  return fmt::format("routing      step {}: mean entropy of {} reads {:.3f} nats, uniform would be {:.3f}\n",
                     snapshot.step, reads, entropy, uniform);
}

}  // namespace

std::string describe_model(const ModelConfig& config) {
  std::string residual = to_string(config.residual);
  if (config.residual == Residual::block_attn_res) {
    residual += fmt::format(" ({}, {} blocks)", to_string(config.source), config.num_blocks);
  } else if (config.routed()) {
    residual += fmt::format(" ({})", to_string(config.source));
  }
  return fmt::format("{}, {:.2f} M parameters, {} layers, hidden_size {}, {} heads over {} of {}, vocabulary {}",
                     residual, static_cast<double>(ParameterLayout(config).count()) / 1e6, config.num_hidden_layers,
                     config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                     config.vocab_size);
}

std::string inspect_run(const std::filesystem::path& run_dir) {
  const auto record_file = run_dir / "routing.h5";
  if (!std::filesystem::exists(record_file))
    throw Error("{}: no such file, expected a run directory", record_file.string());
  const RoutingRecordView record = RoutingRecordView::load(record_file);
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run_dir);

  std::string out = fmt::format("run          {}\n", run_dir.string());
  if (!checkpoints.empty()) {
    out += fmt::format("model        {}\n", describe_model(ModelConfig::load(checkpoints.back().dir / "config.json")));
    out += fmt::format("checkpoints  {}: steps {} to {}\n", checkpoints.size(), checkpoints.front().step,
                       checkpoints.back().step);
  } else {
    out += "checkpoints  none yet\n";
  }
  out += fmt::format("probe set    {} sequences of {} tokens\n", record.info.sequences, record.info.positions);
  if (!record.train.empty()) {
    const TrainRow &first = record.train.front(), &last = record.train.back();
    out += fmt::format("training     step {} to {}: loss {:.4f} to {:.4f} nats/token, {} tokens seen\n", first.step,
                       last.step, first.loss, last.loss, last.tokens_seen);
  }
  if (!record.valid.empty()) {
    const ValidRow &first = record.valid.front(), &last = record.valid.back();
    out += fmt::format("validation   step {} to {}: loss {:.4f} to {:.4f} nats/token\n", first.step, last.step,
                       first.loss, last.loss);
  }
  out += fmt::format("snapshots    {} of routing, {} of them for every token\n", record.snapshots.size(),
                     record.alpha_steps.size());
  if (!record.snapshots.empty() && !record.info.reads.empty())
    out += entropy_line(record.snapshots.back(), record.info.sources.size());

  const auto analysis_file = run_dir / "analysis.h5";
  if (!std::filesystem::exists(analysis_file))
    return out + "probes       none yet (routescope-analyze track --run DIR)\n";
  const AnalysisRecord analysis = AnalysisRecord::load(analysis_file);
  out += fmt::format("probes       {} of {} checkpoints\n", analysis.rows.size(), checkpoints.size());
  if (analysis.rows.empty()) return out;
  return out + "\n" + step_line(analysis.rows.back(), analysis.identity) + "\n" +
         findings_text(find(analysis), analysis);
}

}  // namespace routescope
