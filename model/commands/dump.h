// Everything a model says about given tokens, in one HDF5 file (data/formats/dump.md): how it is held against others.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/files/tokens.h"
#include "model/pass/intervention.h"
#include "model/pass/model.h"

namespace routescope::model {

/// logit_bias [read][column] from an HDF5 file's dataset `logit_bias` [read, source]. Throws Error if it does not fit
/// the model, holds NaN or +inf, or leaves a read without a source.
std::vector<std::vector<double>> read_logit_bias(const std::filesystem::path& file, const ReadPlan& plan);

/// Writes the file, complete or absent. `gradients`: also /grad/NAME of mean(nll), for which sequences need two tokens.
void dump(const Model& model, const TokenBatch& tokens, const RoutingIntervention& intervention, bool gradients,
          const std::filesystem::path& file);

}  // namespace routescope::model
