// Routing records of small models. Every value is a function of its step, so that a test notices any row that is not as
// it was written.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "data/records/routing_record.h"

namespace routescope::data {

/// `layers` 0: a standard model.
inline RoutingRecordInfo small_info(std::int64_t layers = 2) {
  RoutingRecordInfo info;
  for (std::int32_t layer = 0; layer < layers; ++layer)
    for (const char* sublayer : {"attn", "mlp"}) {
      info.reads.push_back(std::to_string(layer) + "." + sublayer);
      info.layer.push_back(layer);
      info.sublayer.push_back(sublayer);
      info.depth.push_back(layer * 3 / layers == 0 ? "early" : "mid");
    }
  if (layers > 0) info.sources = {"embedding", "block_1", "current"};
  info.hidden_size = 8;
  info.sequences = 3;
  info.positions = 5;
  for (std::int32_t i = 0; i < 15; ++i) info.probe_tokens.push_back(i * 7 % 257);
  info.probe_documents = {2, 5, 5};
  info.config = "run: {seed: 1}\n";
  info.git_commit = "0123abc";
  return info;
}

inline std::vector<float> values(std::int64_t step, int what, std::size_t count) {
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<float>(step) + static_cast<float>(what) / 16 + static_cast<float>(i) / 1024;
  return out;
}

inline RoutingSnapshot snapshot_at(std::int64_t step, const RoutingRecordInfo& info) {
  const std::size_t reads = info.reads.size(), sources = info.sources.size();
  const auto d = static_cast<std::size_t>(info.hidden_size);
  RoutingSnapshot out{step,
                      step * 640,
                      values(step, 0, reads * sources),
                      values(step, 1, reads * sources),
                      values(step, 2, reads),
                      values(step, 3, reads * sources),
                      values(step, 7, reads * sources),
                      values(step, 8, reads * sources),
                      values(step, 4, reads * d),
                      values(step, 5, reads * d),
                      values(step, 6, reads)};
  if (!out.alpha_mean.empty()) out.alpha_mean[1] = std::numeric_limits<float>::quiet_NaN();
  return out;
}

/// Weights that binary16 holds exactly.
inline std::vector<float> alpha_at(std::int64_t step, const RoutingRecordInfo& info) {
  std::vector<float> out(info.reads.size() * static_cast<std::size_t>(info.sequences * info.positions) *
                         info.sources.size());
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>((i * 37 + static_cast<std::size_t>(step) * 11) % 1025) / 1024;
  return out;
}

inline TrainRow train_at(std::int64_t step) {
  const auto x = static_cast<double>(step);
  return {step,     step * 640,     5 / (1 + x),    1e-3 / (1 + x), 1 + std::sin(x),
          1000 + x, 0.5 + x / 1024, 0.25 + x / 512, 0.5 + x / 512,  step % 5};
}

inline ValidRow valid_at(std::int64_t step) {
  return {step, 6 / (1 + static_cast<double>(step))};
}

/// Everything a trainer records of one step: the curves always, snapshots at even steps, weights per token at multiples
/// of 4.
inline void record_step(RoutingRecord& record, std::int64_t step, const RoutingRecordInfo& info) {
  record.append(train_at(step));
  if (step % 2 == 0) record.append(snapshot_at(step, info));
  if (step % 2 == 0) record.append(valid_at(step));
  if (step % 4 == 0) record.append_alpha(step, alpha_at(step, info));
  record.flush();
}

}  // namespace routescope::data
