// Routing that no token changes: a model whose queries are all zero (a wrapped one, MATH.md, "Wrapping"; any before its
// first training step) weighs its sources by its biases alone, in closed form. And what counts as shown of the paper's
// three claims, wherever they are worded.
#pragma once

#include <span>

#include "analysis/findings.h"
#include "model/model.h"

namespace routescope {

/// Whether the model has reads, and every query is zero.
bool has_closed_form(const Model& model);

/// Largest |alpha - closed form| of one read of such a model, alpha [tokens, n] as the intact model computed it. With n
/// sources and a bias b on the current one: e^b / (e^b + n - 1) for that, 1 / (e^b + n - 1) for every other. Infinite
/// where a weight is not a number.
double closed_form_error(const Model& model, int read, std::span<const double> alpha);

/// What an f32 softmax over a few weights may be off by: exp() of a logit of some units, a sum and a quotient.
inline constexpr double f32_rounding = 16.0 / (1 << 24);

/// The most that a weight varies over tokens, of all routes: a standard deviation.
double greatest_spread(const ProbeRow& row);
/// 1: the weights are their closed form, whatever the token, to rounding.
bool holds_closed_form(const ProbeRow& row);
/// 2: the motif's excess is shown to be above zero at the last row, by the test of `shown_from` (one-sided, 5 %).
bool shown_above_control(const Motif& motif);
/// 3: the slice of the largest mass is shown not to have the largest effect; of pooled findings, in every run.
bool largest_differ(const Dissociation& row);

}  // namespace routescope
