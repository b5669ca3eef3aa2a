// The rows of routing.h5, and the field of the file that holds each of their members (data/formats/routing.md). A new
// column is a member and a field here, a line of that page, and its value where the row is made.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/records/record_field.h"

namespace routescope::data {

/// Version of the file. A new column raises the minor version.
inline constexpr std::int64_t routing_version_major = 1, routing_version_minor = 3;

/// The fixed part of a record. A standard model has no reads: the axes then have length 0.
struct RoutingRecordInfo {
  std::vector<std::string> reads;     // "0.attn", ...
  std::vector<std::int32_t> layer;    // per read, -1 for final
  std::vector<std::string> sublayer;  // per read
  std::vector<std::string> depth;     // per read
  std::vector<std::string> sources;   // "embedding", "block_1", ..., "current"
  std::int64_t hidden_size = 0;
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::int32_t> probe_tokens;  // [sequences, positions]
  /// [sequences] the number in the stream of the document that each sequence's first token belongs to. Empty: not
  /// known.
  std::vector<std::int64_t> probe_documents;
  std::string config;  // the resolved YAML text
  std::string git_commit;
};

/// One routing snapshot; a source that a read does not have is NaN.
struct RoutingSnapshot {
  std::int64_t step = 0, tokens_seen = 0;
  std::vector<float> alpha_mean, alpha_std;  // [read, source]
  std::vector<float> alpha_entropy;          // [read], nats
  std::vector<float> source_rms;             // [read, source]
  std::vector<float> contribution_mean;      // [read, source]
  std::vector<float> norm_mass_mean;         // [read, source]
  std::vector<float> query, gain;            // [read, d]
  std::vector<float> bias;                   // [read]
};

inline std::vector<RowField<RoutingSnapshot>> snapshot_fields() {
  using Row = RoutingSnapshot;
  return {
      field_of("/tokens_seen", {}, "token", "training tokens seen before the snapshot", &Row::tokens_seen),
      field_of("/alpha_mean", {"read", "source"}, "1",
               "routing weight, mean over the probe tokens; NaN: no such source", &Row::alpha_mean),
      field_of("/alpha_std", {"read", "source"}, "1", "routing weight, standard deviation over the probe tokens",
               &Row::alpha_std),
      field_of("/alpha_entropy", {"read"}, "nat", "entropy of a token's routing weights, mean over the probe tokens",
               &Row::alpha_entropy),
      field_of("/source_rms", {"read", "source"}, "1",
               "root mean square of the source's channels, mean over probe tokens", &Row::source_rms),
      field_of("/contribution_mean", {"read", "source"}, "1",
               "contribution of the source to the read, mean over the probe tokens", &Row::contribution_mean),
      field_of("/norm_mass_mean", {"read", "source"}, "1",
               "norm-weighted mass of the source in the read, mean over the probe tokens", &Row::norm_mass_mean),
      field_of("/query", {"read", "d"}, "1", "learned query w of the read", &Row::query),
      field_of("/gain", {"read", "d"}, "1", "learned key gain g of the read", &Row::gain),
      field_of("/bias", {"read"}, "nat", "bias on the current source's logit of the read", &Row::bias),
  };
}

struct TrainRow {
  std::int64_t step = 0;  // 1 after the first update
  std::int64_t tokens_seen = 0;
  double loss = 0;  // nats a token
  double learning_rate = 0;
  double grad_norm = 0;
  double tokens_per_second = 0;
  double seconds = 0;  // of this step
  // Of its gradients, without waiting for other ranks; NaN and -1 where they are not known.
  double rank_seconds_median = std::numeric_limits<double>::quiet_NaN();
  double rank_seconds_slowest = std::numeric_limits<double>::quiet_NaN();
  std::int64_t slowest_rank = -1;
};

inline std::vector<RowField<TrainRow>> train_fields() {
  using Row = TrainRow;
  return {
      field_of("/train/tokens_seen", {}, "token", "training tokens seen, this step's included", &Row::tokens_seen),
      field_of("/train/loss", {}, "nat/token", "mean negative log-likelihood of the step's tokens, before its update",
               &Row::loss),
      field_of("/train/lr", {}, "1", "learning rate of the update", &Row::learning_rate),
      field_of("/train/grad_norm", {}, "nat/token", "Euclidean norm of the gradient before clipping", &Row::grad_norm),
      field_of("/train/tokens_per_second", {}, "token/s", "training tokens of the step over its duration",
               &Row::tokens_per_second),
      field_of("/train/seconds", {}, "s", "duration of the step", &Row::seconds),
      field_of("/train/rank_seconds_median", {}, "s",
               "time of a rank for its gradients, without waiting for others: median over ranks",
               &Row::rank_seconds_median),
      field_of("/train/rank_seconds_slowest", {}, "s", "the same of the slowest rank", &Row::rank_seconds_slowest),
      field_of("/train/slowest_rank", {}, "1", "the slowest rank of the step", &Row::slowest_rank),
  };
}

struct ValidRow {
  std::int64_t step = 0;
  double loss = 0;  // nats a token
};

inline std::vector<RowField<ValidRow>> valid_fields() {
  return {field_of("/valid/loss", {}, "nat/token", "mean negative log-likelihood of the validation tokens",
                   &ValidRow::loss)};
}

}  // namespace routescope::data
