// The circuit of a model: edges by score on one half of the documents, everything reported from the other.
#pragma once

#include <cstdint>

#include "analysis/circuits/circuit.h"
#include "analysis/probe/measure.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// Everything but model_sha256. `model` in f32 or f64. The means that `mean` puts in are those of the scoring half.
/// Ranks share the sequences. `step` tells the resampling of one row from that of another. Throws Error for `mean`
/// without room (expect_room_for_means()).
CircuitRow measure_circuit(const model::Model& model, const CircuitIdentity& identity, std::int64_t step,
                           kernels::Communicator& communicator, std::size_t batch_bytes = default_batch_bytes);
/// In a process alone.
CircuitRow measure_circuit(const model::Model& model, const CircuitIdentity& identity, std::int64_t step = 0);

}  // namespace routescope::analysis
