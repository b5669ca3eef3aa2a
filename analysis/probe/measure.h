// Batches of sequences under the intact model and under interventions, compared token by token. Ranks share the
// batches.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/routes/prepare.h"
#include "kernels/comm/communicator.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"

namespace routescope::analysis {

/// Values of one forward pass for each token [batch * positions]; 0 where no prediction is scored
/// (ProbeTokens::targets()).
struct PassValues {
  std::vector<double> nll;            // nats
  std::vector<double> kl;             // KL(intact || this pass), nats
  std::vector<double> agree;          // 1: the same first choice as the intact model
  std::vector<MetricValues> answers;  // [batch] of a task; else empty
};

/// [sequence] the sum over the tokens of each sequence.
std::vector<double> by_sequence(std::span<const double> by_token, std::int64_t positions);

/// The time of a clock that never goes back.
double seconds_now();

/// An intact pass whose logits are kept, then a pass for each intervention, compared with it.
class BatchProbe {
 public:
  BatchProbe(const model::Model& model, std::int64_t batch, std::int64_t positions);

  std::int64_t batch() const { return pass_.batch(); }
  std::int64_t positions() const { return pass_.seq_len(); }
  /// [batch] ProbeTokens::length() of the sequences of intact().
  std::span<const std::int64_t> lengths() const { return lengths_; }

  /// The sequences of `tokens` from `first` on: also those of the calls that follow, until the next call of this. kl
  /// and agree stay empty.
  PassValues intact(const ProbeTokens& tokens, std::int64_t first);
  /// One intervention for all sequences, or one for each. Everything before `first_read` is taken over from the last
  /// pass, in which it was intact. The bits are those of a pass from the first read on, because every read is computed
  /// by itself (ReadPhases::fused). Sets kl, agree and answers only if `compared`.
  PassValues intervened(std::span<const model::RoutingIntervention> interventions, int first_read, bool compared);
  /// The direct effect of an intervention on `reads` (Pass::forward_direct()). The last pass was intact(), or this.
  PassValues direct(const model::RoutingIntervention& intervention, std::span<const int> reads);
  /// What these ablations take from the last pass as donors (Donor::text), or, if `frozen`, from the intact model.
  KeptPass keep(std::span<const Ablation> ablations, bool frozen) const;
  /// keep() of donors, of a pass over other ids. Call intact() before anything else.
  KeptPass donors(std::span<const std::int32_t> ids, std::span<const Ablation> ablations);

  /// Of the last pass, on the host: alpha [tokens, n+1] of a routed read, and the partial [tokens, d] of any read.
  std::vector<double> alpha(int read) const { return kernels::host_values<double>(pass_.alpha(read), pass_.stream()); }
  std::vector<double> partial(int read) const {
    return kernels::host_values<double>(pass_.partial(read), pass_.stream());
  }
  /// Likewise of a routed read: contribution and norm-weighted mass of its n+1 sources (MATH.md, "Masses"),
  /// summed over the tokens of each sequence that count (ProbeTokens::length()), [batch, 2, n+1].
  std::vector<double> contributions(int read) const;

 private:
  /// Logits and nll of all tokens, a chunk at a time; calls `each` for every chunk. `answers`: also those.
  template <class Each>
  PassValues evaluate(const Each& each, bool answers = false);

  kernels::OwnedTensor copy_of(const kernels::Tensor& tensor) const;

  model::Pass pass_;
  std::int64_t reads_;
  int partials_;
  std::int64_t vocab_, chunk_;
  kernels::OwnedTensor intact_, changed_, nll_, kl_, agree_, targets_;
  std::vector<std::int32_t> ids_, scored_;  // scored_: what targets_ holds
  std::vector<std::int64_t> lengths_;       // [batch]
  std::vector<Answer> answers_;             // [batch] of a task
};

/// ids [count * positions] of `count` sequences.
std::span<const std::int32_t> ids_of(const ProbeTokens& tokens, std::int64_t first, std::int64_t count);

/// Memory for the intact logits and the shared activations of a batch, about.
inline constexpr std::size_t default_batch_bytes = std::size_t{512} << 20;

/// Sequences in batches whose intact logits and shared activations take about `batch_bytes` (at least one sequence at a
/// time), each measured by one rank.
class SharedBatches {
 public:
  SharedBatches(const model::Model& model, const ProbeTokens& tokens, std::size_t batch_bytes,
                kernels::Communicator& communicator)
      : model_(model), tokens_(tokens), batch_bytes_(batch_bytes), communicator_(communicator) {}

  /// Appends the numbers of each sequence of a batch to the sequence's vector, as many for each; `first` is the batch's
  /// first sequence.
  using Body = std::function<void(BatchProbe& batch, std::int64_t first, std::span<std::vector<double>> values)>;
  /// The numbers of sequences [begin, end), on all ranks. If one rank fails, all throw (agree()).
  std::vector<std::vector<double>> measure(std::int64_t begin, std::int64_t end, const std::string& what,
                                           const Body& body);

 private:
  const model::Model& model_;
  const ProbeTokens& tokens_;
  std::size_t batch_bytes_;
  kernels::Communicator& communicator_;
  std::unique_ptr<BatchProbe> batch_;
};

}  // namespace routescope::analysis
