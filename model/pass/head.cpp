#include "model/pass/head.h"

#include <algorithm>

namespace routescope::model {

namespace {

void head_product(PassState& pass, kernels::Tensor out, std::int64_t begin, std::int64_t end) {
  const kernels::Tensor x = pass.at(pass.last_read()).x.rows(begin, end);
  kernels::matmul(out, x, kNo, pass.model.operands().head, kYes, false, pass.stream);
}

/// Calls body(first, last, logits of tokens [first, last)) for each chunk of tokens [begin, end).
template <class Body>
void for_each_chunk(PassState& pass, std::int64_t begin, std::int64_t end, Body body) {
  for (std::int64_t first = begin; first < end; first += pass.act.head_rows) {
    const std::int64_t last = std::min(first + pass.act.head_rows, end);
    const kernels::Tensor logits = pass.act.logits.rows(0, last - first);
    head_product(pass, logits, first, last);
    body(first, last, logits);
  }
}

}  // namespace

void head_logits(PassState& pass, std::int64_t begin, std::int64_t end, kernels::Tensor out) {
  if (out.device == pass.act.logits.device && out.dtype == pass.act.logits.dtype)
    return head_product(pass, out, begin, end);
  for_each_chunk(pass, begin, end, [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    kernels::cast(out.rows(first - begin, last - begin), logits, pass.stream);
  });
}

void forward_loss(PassState& pass) {
  const Activations& act = pass.act;
  for_each_chunk(pass, 0, pass.shape.tokens(), [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    kernels::cross_entropy(act.nll.rows(first, last), kernels::Tensor{}, logits, act.targets.rows(first, last), 0.0,
                           pass.stream);
  });
}

void backward_head(PassState& pass, double scale, const Weights& gradients) {
  const kernels::Range range("head");
  const Activations& act = pass.act;
  const kernels::Tensor x = pass.at(pass.last_read()).x;
  for_each_chunk(pass, 0, pass.shape.tokens(), [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    const kernels::Tensor dlogits = act.dlogits.rows(0, last - first);
    kernels::cross_entropy(act.nll.rows(first, last), dlogits, logits, act.targets.rows(first, last), scale,
                           pass.stream);
    kernels::matmul(act.backward.dx.rows(first, last), dlogits, kNo, pass.model.operands().head, kNo, false,
                    pass.stream);
    kernels::matmul(gradients.head, dlogits, kYes, x.rows(first, last), kNo, true, pass.stream);
  });
}

}  // namespace routescope::model
