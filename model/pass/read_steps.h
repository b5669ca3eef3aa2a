// What a pass does at a read, forward and backward (MATH.md, "Residual stream and reads", "Gradients"). A read that is
// not routed is a residual add and an RMSNorm. Reads that share their completed sources are a group.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/memory.h"
#include "model/pass/intervention.h"
#include "model/pass/pass_state.h"

namespace routescope::model {

// ---- forward ----

/// The first phase of `count` routed reads of one group, `first` and those after it.
void prepare_reads(PassState& pass, int first, int count);

/// p_r, alpha and x, the normalised input of sublayer r. Before the call, partial r holds y_{r-1}; p_r replaces it.
/// `resumed`: the pass starts at this read, and partial r holds p_r already. `prepared_first`: the first of the reads
/// that were prepared together with this one, or -1.
void forward_read(PassState& pass, int r, kernels::Tensor alpha_override, bool resumed, int prepared_first);

/// The same of one sequence of the batch, for a read that was not prepared. alpha_override [seq_len, n+1].
void forward_read_of(PassState& pass, std::int64_t sequence, int r, kernels::Tensor alpha_override, bool resumed);

/// The tensors of edit_read(), which allocates them when it first runs.
struct EditScratch {
  kernels::OwnedTensor inv_rms, h_inv_rms, rows;  // [tokens]
  kernels::OwnedTensor score, alpha, given;       // [tokens, columns]
  std::vector<kernels::OwnedTensor> extra;        // [tokens, d] each
  std::int64_t columns = 0;
};

/// After forward_read(): x of read r once more, with edited weights over its sources and the extra ones. The rest of
/// the read's state stays as it is. `sequences`: of the batch, first and how many.
void edit_read(PassState& pass, EditScratch& scratch, int r, const ReadEdit& edit, std::int64_t first_sequence,
               std::int64_t sequences);

/// Pass::read_logits().
std::vector<double> read_logits(PassState& pass, int r);

// ---- backward ----

/// dx of read r -> dp +=, the gradients of the read's parameters +=, and dh and dlogit, which
/// backward_group_sources() needs.
void backward_read(PassState& pass, int r, const Weights& gradients, int group_first);

/// After backward_read() of all reads of a group, `first` to `last`: the gradients of the completed sources +=.
void backward_group_sources(PassState& pass, int first, int last);

/// x of read r once more, from its partial and alpha.
void recompute_input(PassState& pass, int r);

}  // namespace routescope::model
