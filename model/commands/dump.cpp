#include "model/commands/dump.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "data/records/record_field.h"
#include "model/pass/pass.h"

namespace routescope::model {

namespace {

using data::RecordField;
using data::hdf5::Type;

// The datasets of a dump, in the order in which they are written. Axes of logits, nll and gradients have no dimension
// scales.
const RecordField sequence_field{"/sequence", {"sequence"}, "1", "Index of the sequence.", Type::i64};
const RecordField position_field{"/position", {"position"}, "1", "Position in the sequence.", Type::i64};
const RecordField tokens_field{
    "/tokens", {"sequence", "position"}, "1", "Token ids that the model was run on.", Type::i32};
const RecordField logits_field{"/logits", {}, "nats", "Logits of the next token.", Type::f32};
const RecordField nll_field{
    "/nll", {}, "nats", "Negative log-likelihood of the token at position t + 1, given those up to t.", Type::f32};
const RecordField read_field{"/read", {"read"}, "", "Names of the reads.", Type::text};
const RecordField source_field{"/source", {"source"}, "", "Names of the sources.", Type::text};
const RecordField alpha_field{"/alpha",
                              {"read", "sequence", "position", "source"},
                              "1",
                              "Routing weights; NaN where a read does not have the source.",
                              Type::f32};
const RecordField grad_field{"/grad/", {}, "nats", "Gradient of mean(nll).", Type::f32};  // and a tensor's name

void write_counting(data::hdf5::File& out, const RecordField& field, std::int64_t n) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  out.write(field.path, values, {n}, layout_of(field));
}

/// alpha of one sequence into [read, B, T, source]; columns that a read lacks stay NaN.
void store_alpha(std::vector<float>& alpha, const Pass& pass, const ReadPlan& plan, std::int64_t b,
                 std::int64_t batch) {
  const std::int64_t t_count = pass.tokens(), columns = plan.num_columns();
  for (int r = 0; r < plan.num_routed(); ++r) {
    const std::vector<float> values = kernels::host_values<float>(pass.alpha(r), pass.stream());
    const std::vector<int>& column = plan.reads[static_cast<std::size_t>(r)].columns;
    const auto n = static_cast<std::int64_t>(column.size());
    for (std::int64_t t = 0; t < t_count; ++t)
      for (std::int64_t i = 0; i < n; ++i)
        alpha[static_cast<std::size_t>(((r * batch + b) * t_count + t) * columns +
                                       column[static_cast<std::size_t>(i)])] =
            values[static_cast<std::size_t>(t * n + i)];
  }
}

}  // namespace

std::vector<std::vector<double>> read_logit_bias(const std::filesystem::path& file, const ReadPlan& plan) {
  const data::hdf5::File in = data::hdf5::File::open(file);
  const data::hdf5::Dataset dataset = in.dataset("logit_bias");
  const data::hdf5::Shape shape = dataset.shape(), expected{plan.num_routed(), plan.num_columns()};
  if (shape != expected)
    throw data::Error("{}: found shape [{}], expected [read, source] = [{}]", dataset.where(), fmt::join(shape, ", "),
                      fmt::join(expected, ", "));
  const std::vector<double> values = dataset.read<double>();
  std::vector<std::vector<double>> table;
  for (std::int64_t r = 0; r < expected[0]; ++r) {
    const auto begin = values.begin() + r * expected[1];
    table.emplace_back(begin, begin + expected[1]);
    bool any = false;
    const Read& read = plan.reads[static_cast<std::size_t>(r)];
    for (int column : read.columns) {
      const double value = table.back()[static_cast<std::size_t>(column)];
      if (std::isnan(value) || value == INFINITY)
        throw data::Error("{}: [{}, {}]: found {}, expected a finite number or -inf", dataset.where(), read.name,
                          plan.columns[static_cast<std::size_t>(column)], value);
      any = any || value > -INFINITY;
    }
    if (!any)
      throw data::Error("{}: [{}]: every source is masked, expected at least one that is not", dataset.where(),
                        read.name);
  }
  return table;
}

void dump(const Model& model, const TokenBatch& tokens, const RoutingIntervention& intervention, bool gradients,
          const std::filesystem::path& file) {
  const ReadPlan& plan = model.plan();
  const std::int64_t batch = tokens.sequences, t = tokens.seq_len, vocab = model.config().vocab_size;
  if (gradients && t < 2) throw data::Error("tokens: found sequences of 1 token, expected at least 2 for a gradient");
  const std::int64_t reads = plan.num_routed(), columns = plan.num_columns();

  Pass pass(model, 1, t, gradients ? Pass::Kind::train : Pass::Kind::infer);
  kernels::OwnedTensor gradient;
  if (gradients)
    gradient = kernels::OwnedTensor(model.options().storage, model.options().device, {model.layout().total()});
  kernels::OwnedTensor logits(model.options().storage, kernels::Device::cpu, {t, vocab});
  std::vector<float> nll,
      alpha(static_cast<std::size_t>(reads * batch * t * columns), std::numeric_limits<float>::quiet_NaN());
  // Sequence by sequence; logits go to the file at once.
  const auto run = [&](data::hdf5::Dataset logits_out) {
    for (std::int64_t b = 0; b < batch; ++b) {
      const std::vector<std::int32_t> ids = tokens.sequence(b), targets = tokens.targets(b);
      pass.forward(ids, &intervention);
      pass.logits(0, t, logits.tensor);
      std::vector<float> nll_row(ids.size());
      logits_out.write_rows<float>(b, kernels::host_values<float>(logits.tensor, pass.stream()));
      store_alpha(alpha, pass, plan, b, batch);
      pass.nll(targets, nll_row);
      nll.insert(nll.end(), nll_row.begin(), nll_row.end() - 1);
      if (gradients) pass.backward(targets, 1.0 / static_cast<double>(batch * (t - 1)), gradient.tensor);
    }
  };

  data::write_atomically(file, [&](const std::filesystem::path& temporary) {
    data::hdf5::File out = data::hdf5::File::create(temporary);
    out.set("filetype", "routescope dump");
    out.set("version", std::vector<std::int64_t>{1, 0});
    write_counting(out, sequence_field, batch);
    write_counting(out, position_field, t);
    out.write(tokens_field.path, tokens.ids, {batch, t}, layout_of(tokens_field));
    run(out.create(logits_field.path, logits_field.type, {batch, t, vocab}, layout_of(logits_field)));
    out.write(nll_field.path, nll, {batch, t - 1}, layout_of(nll_field));
    if (reads > 0) {
      std::vector<std::string> names;
      for (std::int64_t r = 0; r < reads; ++r) names.push_back(plan.reads[static_cast<std::size_t>(r)].name);
      out.write(read_field.path, names, layout_of(read_field));
      out.write(source_field.path, plan.columns, layout_of(source_field));
      out.write(alpha_field.path, alpha, {reads, batch, t, columns}, layout_of(alpha_field));
    }
    if (gradients) {
      for (const ParameterInfo& info : model.layout().all()) {
        const kernels::Tensor g = gradient.tensor.slice(info.offset, {info.size});
        out.write(grad_field.path + info.name, kernels::host_values<float>(g, pass.stream()), info.shape,
                  layout_of(grad_field));
      }
    }
    out.close();
  });
}

}  // namespace routescope::model
