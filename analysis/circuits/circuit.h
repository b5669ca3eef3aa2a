// Circuits of routes (MATH.md, "Circuits"): what is asked, and what was found at one step. An edge is a route, one
// source of one read, the final read's included.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/routes/ablation.h"
#include "analysis/statistics/statistics.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// What edges are ranked by: the true effect of ablating each alone, or the atlas's estimate of masking it.
enum class ScoreKind { exact, estimate };
std::string to_string(ScoreKind kind);

/// What the command line says of a measurement of circuits; all of it is kept in the file as JSON.
struct CircuitSettings {
  std::uint64_t seed = 1;  // of the halves, of random orders, of `resample` and of resampling
  ScoreKind score = ScoreKind::exact;
  Ablation ablation = Ablation::mean;  // mean, zero or resample: what is done to edges that are not kept
  double faithfulness = 0.9;           // that a circuit has to reach on the scoring half
  int baselines = 8;                   // random orders
  bool prune = false;                  // edges of the circuit are ranked again by what dropping each costs

  bool operator==(const CircuitSettings&) const = default;
};
inline constexpr int most_random_orders = 1000;

/// One line of JSON.
std::string to_json(const CircuitSettings& settings);
/// Throws Error naming `where` and the key that is missing, unknown, of another kind or out of range.
CircuitSettings circuit_settings_from_json(const std::string& text, const std::string& where);
/// Throws UsageError naming the member that has a value which no measurement can have.
void check(const CircuitSettings& settings);

/// What all rows of a circuit.h5 share.
struct CircuitIdentity {
  ProbeTokens tokens;
  CircuitSettings settings = {};
  std::string model_config;  // config.json, one line
  std::vector<std::uint8_t>
      held_out;  // [sequence] 1: reported on; 0: scores, means and the circuit's size come from it

  /// Of the model. Throws Error if model_config does not describe one.
  model::ReadPlan plan() const;
};

/// Splits documents at random in two halves, and of an odd number reports on the larger one. Throws Error for a model
/// without reads, fewer than two documents, or tokens that do not fit; UsageError for settings that nothing can have.
CircuitIdentity identify_circuits(const model::ModelConfig& config, ProbeTokens tokens,
                                  const CircuitSettings& settings = {});
/// The sequences of one half.
ProbeTokens half_of(const CircuitIdentity& identity, bool held_out);

using Edge = std::pair<int, int>;  // (read, column)
/// Every edge that the ablation can change, by read and column.
std::vector<Edge> circuit_edges(const model::ReadPlan& plan, Ablation ablation);
/// "2.mlp<-block_1"
std::string edge_name(const model::ReadPlan& plan, const Edge& edge);
/// How many edges are kept at the points of a curve: all numbers up to `all_points`, else about `curve_points` of them,
/// denser where few are kept.
std::vector<std::int64_t> kept_counts(std::size_t edges);
inline constexpr std::size_t all_points = 32, curve_points = 24;

/// Names of the orders whose curves are measured: "score", "magnitude", "random_1", ...
std::vector<std::string> order_names(const CircuitSettings& settings);

/// Losses are nats a token, mean over the predicted tokens of a sequence. Faithfulness f = (M(kept) - M(none)) /
/// (M(all) - M(none)), M = -nll, the ratio of means over held-out sequences. Everything is of the held-out half but
/// `score`, `magnitude`, `scoring_faithfulness`, and the choice of what is kept. NaN where it is not shown that
/// ablating every edge costs anything.
struct CircuitRow {
  std::int64_t step = 0;
  std::string model_sha256;
  double nll = nan;                          // of the intact model
  Estimate none;                             // what ablating every edge adds to it
  double none_p = nan;                       // one-sided, of nothing
  std::vector<Estimate> score;               // [edge]
  std::vector<double> magnitude;             // [edge] mean norm-weighted mass
  std::vector<double> scoring_faithfulness;  // [k] of the order by score, on the scoring half
  std::vector<double> loss;                  // [order, k, sequence] what keeping the first k edges adds to the nll
  std::vector<Estimate> faithfulness;        // [order, k]
  std::vector<Estimate> area;                // [order] under the curve over k / edges
  Estimate random_area;                      // mean over random orders; the interval counts them as a sample too
  Estimate above_magnitude, above_random;    // area of the order by score minus theirs

  std::vector<std::uint8_t> kept;  // [edge] 1: in the circuit
  std::vector<double> kept_loss;   // [sequence] what the circuit alone adds to the nll
  std::vector<double> rest_loss;   // [sequence] what everything but the circuit adds to it
  Estimate kept_faithfulness;      // of the circuit
  Estimate rest_faithfulness;      // of everything but the circuit: completeness, near 0 if nothing is left
  std::vector<double> drop_loss;   // [edge, sequence] what dropping the edge from the circuit adds; NaN if not kept
  std::vector<Estimate> drop;      // [edge] its mean
  std::vector<double> drop_p;      // [edge] one-sided, of no rise, Holm over the circuit's edges
  double needed = nan;             // share of the circuit's edges whose drop is shown to raise the loss

  double passes = nan;                        // what it took, in plain passes over all the tokens
  double seconds = nan, plain_seconds = nan;  // on the first rank; of one plain pass over all the tokens

  std::size_t size() const;  // of the circuit
};

/// All rows of a circuit.h5, by step.
struct CircuitRecord {
  CircuitIdentity identity;
  std::string created;
  std::vector<CircuitRow> rows;

  const CircuitRow* find(std::int64_t step) const;
  /// Adds a row, or replaces that of its step.
  void put(CircuitRow row);
};

}  // namespace routescope::analysis
