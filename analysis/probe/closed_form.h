// Routing that does not depend on tokens. A model whose queries are all zero weighs its sources by its biases alone, in
// closed form (MATH.md, "Wrapping"). A wrapped model is one; so is any model before its first training step.
#pragma once

#include <span>

#include "model/pass/model.h"

namespace routescope::analysis {

/// Whether the model has reads, and every query is zero.
bool has_closed_form(const model::Model& model);

/// Largest |alpha - closed form| of one read of such a model, alpha [tokens, n] as the intact model computed it. With n
/// sources and a bias b on the current one: e^b / (e^b + n - 1) for the current source, 1 / (e^b + n - 1) for every
/// other. Infinite if a weight is NaN.
double closed_form_error(const model::Model& model, int read, std::span<const double> alpha);

/// The rounding error of an f32 softmax over a few weights: exp() of a logit of some units, a sum and a quotient.
inline constexpr double f32_rounding = 16.0 / (1 << 24);

}  // namespace routescope::analysis
