#include "analysis/commands/inspect.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "analysis/commands/tables.h"
#include "analysis/findings/findings.h"
#include "analysis/writers/writers.h"
#include "data/base/error.h"
#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "model/pass/parameters.h"

namespace routescope::analysis {
namespace {

/// Of one snapshot, over its reads: the mean entropy, and what it would be if every read weighed its sources alike.
std::string entropy_line(const data::RoutingSnapshot& snapshot, std::size_t columns) {
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

/// The mean weight omega of each kind of writer, which follows from the mean weights of sources
/// (data/formats/routing.md, "Writers").
std::string writers_line(const data::RoutingSnapshot& snapshot, const model::ReadPlan& plan) {
  const std::size_t writers = plan.reads.size(), columns = plan.columns.size();
  std::vector<double> sum(writers, 0.0), reads(writers, 0.0);
  for (std::size_t r = 0; r < static_cast<std::size_t>(plan.num_routed()); ++r) {
    std::vector<double> alpha;
    for (int column : plan.reads[r].columns)
      alpha.push_back(static_cast<double>(snapshot.alpha_mean[r * columns + static_cast<std::size_t>(column)]));
    const std::vector<double> omega = writer_weights(plan, static_cast<int>(r), alpha);
    for (std::size_t w = 0; w <= r; ++w) {
      sum[w] += omega[w];
      reads[w] += 1;
    }
  }
  std::vector<double> attention, mlp;
  for (std::size_t w = 1; w < writers && reads[w] > 0; ++w)
    (plan.reads[w - 1].sublayer == model::Sublayer::attn ? attention : mlp).push_back(sum[w] / reads[w]);
  return fmt::format(
      "writers      step {}: mean weight over the reads behind them: embedding {:.3f}, attention {:.3f}, MLP {:.3f}\n",
      snapshot.step, sum[0] / reads[0], mean(attention), mean(mlp));
}

}  // namespace

std::string inspect_run(const std::filesystem::path& run_dir) {
  const auto record_file = run_dir / "routing.h5";
  if (!std::filesystem::exists(record_file))
    throw data::Error("{}: no such file, expected a run directory", record_file.string());
  const data::RoutingRecordView record = data::RoutingRecordView::load(record_file);
  const std::vector<data::CheckpointEntry> checkpoints = data::list_checkpoints(run_dir);

  std::string out = fmt::format("run          {}\n", run_dir.string());
  std::optional<model::ModelConfig> config;
  if (!checkpoints.empty()) {
    config = model::ModelConfig::load(checkpoints.back().dir / "config.json");
    out += fmt::format("model        {}\n", model::describe_model(*config));
    out += fmt::format("checkpoints  {}: steps {} to {}\n", checkpoints.size(), checkpoints.front().step,
                       checkpoints.back().step);
  } else {
    out += "checkpoints  none yet\n";
  }
  out += fmt::format("probe set    {} sequences of {} tokens\n", record.info.sequences, record.info.positions);
  if (!record.train.empty()) {
    const data::TrainRow &first = record.train.front(), &last = record.train.back();
    out += fmt::format("training     step {} to {}: loss {:.4f} to {:.4f} nats/token, {} tokens seen\n", first.step,
                       last.step, first.loss, last.loss, last.tokens_seen);
  }
  if (!record.valid.empty()) {
    const data::ValidRow &first = record.valid.front(), &last = record.valid.back();
    out += fmt::format("validation   step {} to {}: loss {:.4f} to {:.4f} nats/token\n", first.step, last.step,
                       first.loss, last.loss);
  }
  out += fmt::format("snapshots    {} of routing, {} of them for every token\n", record.snapshots.size(),
                     record.alpha_steps.size());
  if (!record.snapshots.empty() && !record.info.reads.empty())
    out += entropy_line(record.snapshots.back(), record.info.sources.size());
  if (const auto plan = config ? std::optional<model::ReadPlan>(*config) : std::nullopt;
      plan && !record.snapshots.empty() && plan->num_routed() > 0 && record.info.sources == plan->columns)
    out += writers_line(record.snapshots.back(), *plan);

  const auto analysis_file = run_dir / "analysis.h5";
  if (!record_exists(analysis_file)) return out + "probes       none yet (routescope-analyze track --run DIR)\n";
  const AnalysisRecord analysis = load_record(analysis_file);
  out += fmt::format("probes       {} of {} checkpoints\n", analysis.rows.size(), checkpoints.size());
  if (analysis.rows.empty()) return out;
  return out + "\n" + step_line(analysis.rows.back(), analysis.identity) + "\n" +
         findings_text(find(analysis), analysis);
}

}  // namespace routescope::analysis
