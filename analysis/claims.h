// Routing that no token changes: a model whose queries are all zero (a wrapped one, MATH.md, "Wrapping"; any before its
// first training step) weighs its sources by its biases alone, in closed form.
#pragma once

#include <span>

#include "model/model.h"

namespace routescope {

/// Whether the model has reads, and every query is zero.
bool has_closed_form(const Model& model);

/// Largest |alpha - closed form| of one read of such a model, alpha [tokens, n] as the intact model computed it. With n
/// sources and a bias b on the current one: e^b / (e^b + n - 1) for that, 1 / (e^b + n - 1) for every other. Infinite
/// where a weight is not a number.
double closed_form_error(const Model& model, int read, std::span<const double> alpha);

}  // namespace routescope
