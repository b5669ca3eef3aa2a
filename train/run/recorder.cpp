#include "train/run/recorder.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "data/base/build.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

namespace routescope::train {

namespace {

constexpr float kAbsent = std::numeric_limits<float>::quiet_NaN();

void copy_to(std::vector<float>& out, std::size_t offset, kernels::Tensor values, const kernels::Stream& stream) {
  kernels::cast(kernels::Tensor(out.data() + offset, kernels::DType::f32, kernels::Device::cpu, {values.numel()}),
                values, stream);
}

/// Elements of totals_ that one read needs: the sums of routing_statistics, of contribution_statistics, the entropy.
std::int64_t totals_size(const model::Read& read) {
  return 5 * static_cast<std::int64_t>(read.columns.size()) + 1;
}
std::int64_t totals_size(const model::ReadPlan& plan) {
  std::int64_t size = 0;
  for (int r = 0; r < plan.num_routed(); ++r) size += totals_size(plan.reads[static_cast<std::size_t>(r)]);
  return size;
}

}  // namespace

RoutingRecorder::RoutingRecorder(const model::Model& model, ProbeSequences probe, std::int64_t seq_len)
    : model_(&model),
      probe_(std::move(probe)),
      seq_len_(seq_len),
      sequences_(std::ssize(probe_.tokens) / seq_len),
      totals_(kernels::DType::f64, model.options().device, {totals_size(model.plan())}) {}

data::RoutingRecordInfo RoutingRecorder::info(const std::string& config_yaml) const {
  const model::ReadPlan& plan = model_->plan();
  data::RoutingRecordInfo info;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    info.reads.push_back(read.name);
    info.layer.push_back(static_cast<std::int32_t>(read.layer));
    info.sublayer.push_back(model::to_string(read.sublayer));
    info.depth.push_back(model::to_string(plan.depth(r)));
  }
  info.sources = plan.columns;
  info.hidden_size = model_->config().hidden_size;
  info.sequences = sequences_;
  info.positions = seq_len_;
  info.probe_tokens = probe_.tokens;
  info.probe_documents = probe_.documents;
  info.config = config_yaml;
  info.git_commit = data::git_commit();
  return info;
}

data::RoutingSnapshot RoutingRecorder::snapshot(model::Pass& pass, kernels::Communicator& communicator,
                                                std::int64_t step, std::int64_t tokens_seen,
                                                std::vector<float>* alpha) const {
  data::RoutingSnapshot out;
  out.step = step;
  out.tokens_seen = tokens_seen;
  if (alpha) alpha->clear();
  if (model_->plan().num_routed() == 0) return out;

  std::vector<float> my_alpha;
  measure(pass, windows_of_rank(sequences_, communicator.place()), alpha ? &my_alpha : nullptr);
  std::vector<double> totals = kernels::host_values<double>(totals_.tensor, pass.stream());
  communicator.all_reduce(totals, kernels::Reduction::sum, "routing statistics");
  if (alpha) *alpha = gather_alpha(my_alpha, communicator);
  read_totals(out, totals);
  read_parameters(out);
  return out;
}

void RoutingRecorder::measure(model::Pass& pass, Windows windows, std::vector<float>* alpha) const {
  const model::ReadPlan& plan = model_->plan();
  const auto reads = static_cast<std::size_t>(plan.num_routed());
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  const auto tokens = static_cast<std::size_t>((windows.end - windows.begin) * seq_len_);
  if (alpha) alpha->assign(reads * tokens * columns, kAbsent);
  const std::vector<double> zeros(static_cast<std::size_t>(totals_.tensor.numel()), 0.0);
  kernels::cast(totals_.tensor,
                kernels::Tensor(const_cast<double*>(zeros.data()), kernels::DType::f64, kernels::Device::cpu,
                                {totals_.tensor.numel()}),
                pass.stream());
  std::vector<float> rows;
  const auto get = [this](std::int64_t begin, std::int64_t end) {
    return data::Batch{{probe_.tokens.begin() + begin * seq_len_, probe_.tokens.begin() + end * seq_len_}, {}};
  };
  for_each_window(pass, windows, get, [&](const data::Batch&, std::int64_t first, std::int64_t count) {
    const std::int64_t counted = count * seq_len_;
    std::int64_t next = 0;  // in totals_
    for (std::size_t r = 0; r < reads; ++r) {
      const auto sources = static_cast<std::int64_t>(plan.reads[r].columns.size());
      const kernels::Tensor sums = totals_.tensor.slice(next, {3, sources});
      const kernels::Tensor contributions = totals_.tensor.slice(next + 3 * sources, {2, sources});
      const kernels::Tensor entropy = totals_.tensor.slice(next + 5 * sources, {1});
      next += totals_size(plan.reads[r]);
      const kernels::Tensor weights = pass.alpha(static_cast<int>(r)).rows(0, counted);
      std::vector<kernels::Tensor> inv_rms = pass.source_inv_rms(static_cast<int>(r)),
                                   values = pass.source_values(static_cast<int>(r));
      for (kernels::Tensor& tensor : inv_rms) tensor = tensor.rows(0, counted);
      for (kernels::Tensor& tensor : values) tensor = tensor.rows(0, counted);
      kernels::routing_statistics(sums, entropy, weights, inv_rms, pass.stream());
      kernels::contribution_statistics(contributions, weights, values, pass.stream());
      if (!alpha) continue;
      const std::vector<int>& at = plan.reads[r].columns;
      rows.resize(static_cast<std::size_t>(weights.numel()));
      copy_to(rows, 0, weights, pass.stream());
      for (std::size_t t = 0; t < static_cast<std::size_t>(counted); ++t) {
        const std::size_t token = static_cast<std::size_t>((first - windows.begin) * seq_len_) + t;
        for (std::size_t i = 0; i < at.size(); ++i) {
          (*alpha)[(r * tokens + token) * columns + static_cast<std::size_t>(at[i])] = rows[t * at.size() + i];
        }
      }
    }
  });
}

void RoutingRecorder::read_totals(data::RoutingSnapshot& out, const std::vector<double>& totals) const {
  const model::ReadPlan& plan = model_->plan();
  const auto reads = static_cast<std::size_t>(plan.num_routed());
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  const auto n = static_cast<double>(sequences_ * seq_len_);
  out.alpha_mean.assign(reads * columns, kAbsent);
  out.alpha_std = out.source_rms = out.contribution_mean = out.norm_mass_mean = out.alpha_mean;
  out.alpha_entropy.assign(reads, 0.0F);
  const double* sum = totals.data();
  for (std::size_t r = 0; r < reads; ++r) {
    const std::vector<int>& at = plan.reads[r].columns;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const std::size_t cell = r * columns + static_cast<std::size_t>(at[i]);
      const double mean = sum[i] / n;
      out.alpha_mean[cell] = static_cast<float>(mean);
      out.alpha_std[cell] = static_cast<float>(std::sqrt(std::max(0.0, sum[at.size() + i] / n - mean * mean)));
      out.source_rms[cell] = static_cast<float>(sum[2 * at.size() + i] / n);
      out.contribution_mean[cell] = static_cast<float>(sum[3 * at.size() + i] / n);
      out.norm_mass_mean[cell] = static_cast<float>(sum[4 * at.size() + i] / n);
    }
    sum += totals_size(plan.reads[r]);
    out.alpha_entropy[r] = static_cast<float>(sum[-1] / n);
  }
}

std::vector<float> RoutingRecorder::gather_alpha(const std::vector<float>& mine,
                                                 kernels::Communicator& communicator) const {
  if (communicator.size() == 1) return mine;
  const auto reads = static_cast<std::size_t>(model_->plan().num_routed());
  const auto columns = static_cast<std::size_t>(model_->plan().num_columns());
  const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(float));
  const std::vector<std::string> parts = communicator.gather(bytes, "routing weights by token");
  if (parts.empty()) return {};
  const std::size_t row = columns * sizeof(float);
  std::vector<float> all(reads * static_cast<std::size_t>(sequences_ * seq_len_) * columns);
  auto* to = reinterpret_cast<char*>(all.data());
  for (std::size_t r = 0; r < reads; ++r) {
    for (int rank = 0; rank < communicator.size(); ++rank) {
      const Windows windows = windows_of_rank(sequences_, {.rank = rank, .size = communicator.size()});
      const std::size_t size = static_cast<std::size_t>((windows.end - windows.begin) * seq_len_) * row;
      std::memcpy(to, parts[static_cast<std::size_t>(rank)].data() + r * size, size);
      to += size;
    }
  }
  return all;
}

void RoutingRecorder::read_parameters(data::RoutingSnapshot& out) const {
  const kernels::Stream stream{.device = model_->options().device};
  const auto d = static_cast<std::size_t>(model_->config().hidden_size);
  const auto reads = static_cast<std::size_t>(model_->plan().num_routed());
  out.query.resize(reads * d);
  out.gain.resize(reads * d);
  // Where no bias is learned the record holds the constant one.
  out.bias.assign(reads, static_cast<float>(model_->config().recency_bias));
  for (std::size_t r = 0; r < reads; ++r) {
    const model::ReadWeights& weights = model_->weights().reads[r];
    copy_to(out.query, r * d, weights.query, stream);
    copy_to(out.gain, r * d, weights.key_gain, stream);
    if (weights.bias) copy_to(out.bias, r, weights.bias, stream);
  }
}

}  // namespace routescope::train
