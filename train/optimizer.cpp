#include "train/optimizer.h"

#include "kernels/ops.h"

namespace routescope {

AdamW::AdamW(Model& model, const TrainConfig::Optimizer& settings, Communicator&, const TrainConfig::Distributed&)
    : settings_(settings),
      exp_avg_(model.options().storage, model.options().device, {model.layout().total()}),
      exp_avg_sq_(model.options().storage, model.options().device, {model.layout().total()}),
      norm_(model.options().storage, model.options().device, {1}),
      scale_(model.options().storage, model.options().device, {1}) {
  for (const ParameterInfo& info : model.layout().all()) {
    if (runs_.empty() || runs_.back().decay != info.decay) runs_.push_back({info.offset, info.offset, info.decay});
    runs_.back().end = info.offset + info.size;
  }
  ranges_.push_back({.begin = 0,
                     .end = model.layout().total(),
                     .exp_avg = exp_avg_.tensor,
                     .exp_avg_sq = exp_avg_sq_.tensor,
                     .parameters = model.flat()});
}

double AdamW::clip(Tensor gradients, double max_norm, const Stream& stream) {
  gradient_norm(norm_.tensor, scale_.tensor, gradients, max_norm, stream);
  double norm = 0;
  cast(Tensor(&norm, DType::f64, Device::cpu, {1}), norm_.tensor, stream);
  return norm;
}

void AdamW::update(Tensor parameters, Tensor gradients, double learning_rate, std::int64_t step, const Stream& stream) {
  for (const Run& run : runs_) {
    const AdamWParams params{.learning_rate = learning_rate,
                             .beta1 = settings_.beta1,
                             .beta2 = settings_.beta2,
                             .eps = settings_.eps,
                             .weight_decay = run.decay ? settings_.weight_decay : 0.0,
                             .step = step};
    adamw(parameters.rows(run.begin, run.end), exp_avg_.tensor.rows(run.begin, run.end),
          exp_avg_sq_.tensor.rows(run.begin, run.end), gradients.rows(run.begin, run.end), scale_.tensor, params,
          stream);
  }
}

}  // namespace routescope
